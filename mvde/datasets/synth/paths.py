"""Paths of cameras on mobile robots and arms, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.synth.filming import CAMERA_HZ
from mvde.datasets.synth.scene import Scene
from mvde.datasets.synth.views import CLEARANCE_M, View, view_along

Poses = NDArray[np.float64]
"""Poses (T, 6): x, y, z in metres, then yaw, tilt and roll in radians, as in :func:`view_along`."""


class ClipKind(str, Enum):
    """What the camera or the scene does in a clip."""

    STATIC = "static"
    FORWARD = "forward"
    TURN = "turn"
    STOP_AND_GO = "stop_and_go"
    SHAKING = "shaking"
    LATERAL = "lateral"
    ARM = "arm"
    MOVING_THINGS = "moving_things"
    CUT = "cut"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Path:
    """Camera path: ``poses`` of its steps with one more at either end, and the vertical field of view in radians."""

    poses: Poses
    vertical_fov: float

    def view(self, moment: float) -> View:
        """View at a moment, in steps from the first one: linear between two poses."""
        at = min(max(moment + 1.0, 0.0), len(self.poses) - 1.0)
        before = min(int(at), len(self.poses) - 2)
        share = at - before
        x, y, z, yaw, tilt, roll = (1 - share) * self.poses[before] + share * self.poses[before + 1]
        return view_along(np.array([x, y, z]), yaw, tilt, roll, self.vertical_fov)


def sample_path(rng: np.random.Generator, scene: Scene, kind: ClipKind, num_steps: int) -> Path | None:
    """Return a random path of a kind, which may pass through things; ``None`` if the scene has no place for it."""
    fov = math.radians(rng.uniform(50.0, 65.0))
    if kind is ClipKind.ARM:
        return Path(_arm(rng, scene, num_steps + 2), fov) if scene.work_tops else None
    return Path(_mobile(rng, scene, kind, num_steps + 2), fov)


def _mobile(rng: np.random.Generator, scene: Scene, kind: ClipKind, count: int) -> Poses:
    """Drive from a random place: 0.2 to 1.5 m high, mostly towards the middle of the room."""
    width, depth, _ = scene.size
    x, y = rng.uniform(CLEARANCE_M, width - CLEARANCE_M), rng.uniform(CLEARANCE_M, depth - CLEARANCE_M)
    yaw = math.atan2(depth / 2 - y, width / 2 - x) + rng.normal(0.0, 0.7)
    tilt = math.radians(np.clip(rng.normal(-8.0, 8.0), -25.0, 10.0))
    poses = np.empty((count, 6))
    poses[:] = x, y, rng.uniform(0.2, 1.5), yaw, tilt, math.radians(rng.normal(0.0, 1.0))
    ahead, aside, turn = _DRIVES.get(kind, _stand)(rng, count)
    headings = yaw + np.concatenate([[0.0], np.cumsum(turn[:-1])]) / CAMERA_HZ
    c, s = np.cos(headings), np.sin(headings)
    poses[1:, 0] += np.cumsum(ahead * c + aside * s)[:-1] / CAMERA_HZ
    poses[1:, 1] += np.cumsum(ahead * s - aside * c)[:-1] / CAMERA_HZ
    poses[:, 3] = headings
    if kind is ClipKind.SHAKING:
        for column, hertz, rms in ((2, 6.0, 0.003), (3, 7.0, 0.0044), (4, 6.0, 0.0061), (5, 5.0, 0.0052)):
            poses[:, column] += _wobble(rng, count, hertz, rms)  # as of a wheeled base on tiles: 3 mm, 0.25 to 0.35°
    return poses


Drive = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Speeds of each frame: ahead and to the right in m/s, turning to the left in rad/s."""


def _stand(rng: np.random.Generator, count: int) -> Drive:
    return np.zeros(count), np.zeros(count), np.zeros(count)


def _forward(rng: np.random.Generator, count: int) -> Drive:
    return np.full(count, rng.uniform(0.15, 0.4)), np.zeros(count), _wobble(rng, count, 0.5, 0.05)


def _turn(rng: np.random.Generator, count: int) -> Drive:
    rate = rng.choice([-1.0, 1.0]) * math.radians(rng.uniform(15.0, 40.0))
    return np.full(count, 0.05), np.zeros(count), np.full(count, rate)


def _stop_and_go(rng: np.random.Generator, count: int) -> Drive:
    """Drive for a third, stop, and turn on the spot in the last third; a fifth of a second to change speed."""
    speed, rate = rng.uniform(0.2, 0.4), rng.choice([-1.0, 1.0]) * math.radians(rng.uniform(20.0, 35.0))
    frames, ramp = np.arange(count), CAMERA_HZ / 5
    ahead = speed * np.clip((count / 3 - frames) / ramp, 0.0, 1.0)
    return ahead, np.zeros(count), rate * np.clip((frames - 2 * count / 3) / ramp, 0.0, 1.0)


def _lateral(rng: np.random.Generator, count: int) -> Drive:
    aside = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.25)
    return np.zeros(count), np.full(count, aside), np.full(count, math.radians(rng.uniform(-8.0, 8.0)))


_DRIVES: dict[ClipKind, Callable[[np.random.Generator, int], Drive]] = {
    ClipKind.FORWARD: _forward,
    ClipKind.CUT: _forward,
    ClipKind.SHAKING: _forward,
    ClipKind.TURN: _turn,
    ClipKind.STOP_AND_GO: _stop_and_go,
    ClipKind.LATERAL: _lateral,
}


def _arm(rng: np.random.Generator, scene: Scene, count: int) -> Poses:
    """Swing around a place on a work top at a distance that changes, as a camera at a wrist."""
    top = scene.work_tops[int(rng.integers(len(scene.work_tops)))]
    u, v = rng.uniform(-0.3, 0.3) * top.width, rng.uniform(-0.3, 0.3) * top.depth
    c, s = math.cos(top.yaw), math.sin(top.yaw)
    target = np.array(top.centre) + np.array([c * u - s * v, s * u + c * v, 0.0])
    azimuth = rng.uniform(0, 2 * math.pi) + _wobble(rng, count, 0.25, 0.15)
    slope = np.clip(math.radians(rng.uniform(35.0, 75.0)) + _wobble(rng, count, 0.3, 0.08), 0.3, 1.5)
    away = rng.uniform(0.45, 1.0) * np.exp(_wobble(rng, count, 0.3, 0.1))
    eye = target + np.stack(
        [-away * np.cos(slope) * np.cos(azimuth), -away * np.cos(slope) * np.sin(azimuth), away * np.sin(slope)], axis=1
    )
    roll = math.radians(rng.normal(0.0, 5.0)) + _wobble(rng, count, 0.4, 0.02)
    yaw, tilt = azimuth + _wobble(rng, count, 0.5, 0.01), -slope + _wobble(rng, count, 0.5, 0.01)
    return np.column_stack([eye, yaw, tilt, roll])


def _wobble(rng: np.random.Generator, count: int, hertz: float, rms: float) -> NDArray[np.float64]:
    """Return a smooth random function of time around 0: six sines from 0.6 to 1.4 times ``hertz``."""
    time_s = np.arange(count)[:, None] / CAMERA_HZ
    rates, phases = rng.uniform(0.6, 1.4, 6) * hertz, rng.uniform(0, 2 * math.pi, 6)
    waves: NDArray[np.float64] = np.sin(2 * math.pi * rates * time_s + phases).sum(axis=1)
    return waves * (rms / math.sqrt(3.0))  # six sines have a variance of 3
