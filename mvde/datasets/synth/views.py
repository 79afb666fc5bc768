"""Camera poses of mobile robots and arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mvde.datasets.synth.builder import FloatArray
from mvde.datasets.synth.scene import Scene

ARM_SHARE = 0.28
CLEARANCE_M = 0.22


@dataclass(frozen=True)
class View:
    """Pinhole camera.

    ``eye_m`` in metres, ``world_from_camera`` (3, 3) with x right, y up and z backwards, the vertical field of view in
    radians.
    """

    eye_m: npt.NDArray[np.float64]
    world_from_camera: npt.NDArray[np.float64]
    vertical_fov: float

    def intrinsics(self, size: tuple[int, int]) -> FloatArray:
        """Return (fx, fy, cx, cy) in pixels, float32; pixel centres are at half-integers, so cx is half the width."""
        height, width = size
        focal = height / 2 / math.tan(self.vertical_fov / 2)
        return np.array([focal, focal, width / 2, height / 2], dtype=np.float32)


def view_along(eye: npt.NDArray[np.float64], yaw: float, tilt: float, roll: float, vertical_fov: float) -> View:
    """Return a view with ``yaw`` (about z, from +x), ``tilt`` (positive upwards) and ``roll``, all in radians."""
    forward = np.array([math.cos(yaw) * math.cos(tilt), math.sin(yaw) * math.cos(tilt), math.sin(tilt)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    up = np.cross(right, forward)
    c, s = math.cos(roll), math.sin(roll)
    axes = np.stack([c * right + s * up, c * up - s * right, -forward], axis=1)
    return View(eye, axes, vertical_fov)


def sample_view(rng: np.random.Generator, scene: Scene) -> View:
    """Return a random view; check it with :func:`is_good_view`."""
    if scene.work_tops and rng.random() < ARM_SHARE:
        return _arm_view(rng, scene)
    return _mobile_view(rng, scene)


def _fov(rng: np.random.Generator) -> float:
    return math.radians(rng.uniform(50.0, 65.0))


def _mobile_view(rng: np.random.Generator, scene: Scene) -> View:
    width, depth, _ = scene.size
    for _ in range(20):
        x, y = rng.uniform(CLEARANCE_M, width - CLEARANCE_M), rng.uniform(CLEARANCE_M, depth - CLEARANCE_M)
        c = CLEARANCE_M
        if not any(r[0] - c < x < r[2] + c and r[1] - c < y < r[3] + c for r in scene.obstacles):
            break
    # Robots seldom face the nearest wall: half of the views turn towards the middle of the room.
    towards_middle = math.atan2(depth / 2 - y, width / 2 - x) + rng.normal(0.0, 0.7)
    yaw = towards_middle if rng.random() < 0.5 else rng.uniform(0, 2 * math.pi)
    tilt = math.radians(np.clip(rng.normal(-8.0, 11.0), -32.0, 16.0))
    eye = np.array([x, y, rng.uniform(0.2, 1.5)])
    return view_along(eye, yaw, tilt, math.radians(rng.normal(0.0, 1.5)), _fov(rng))


def _arm_view(rng: np.random.Generator, scene: Scene) -> View:
    top = scene.work_tops[int(rng.integers(len(scene.work_tops)))]
    c, s = math.cos(top.yaw), math.sin(top.yaw)
    u, v = rng.uniform(-0.35, 0.35) * top.width, rng.uniform(-0.35, 0.35) * top.depth
    target = np.array(top.centre) + np.array([c * u - s * v, s * u + c * v, 0.0])
    above = rng.uniform(0.4, 1.2)
    away, heading = above * math.tan(math.radians(rng.uniform(0.0, 62.0))), rng.uniform(0, 2 * math.pi)
    eye = target + np.array([-away * math.cos(heading), -away * math.sin(heading), above])
    eye = np.clip(eye, 0.15, np.array(scene.size) - 0.15)
    gaze = target - eye
    yaw = math.atan2(gaze[1], gaze[0]) if np.hypot(gaze[0], gaze[1]) > 1e-3 else heading
    tilt = max(math.atan2(gaze[2], float(np.hypot(gaze[0], gaze[1]))), math.radians(-89.0))
    return view_along(eye, yaw, tilt, math.radians(rng.normal(0.0, 5.0)), _fov(rng))


def is_good_view(depth_m: FloatArray) -> bool:
    """Return whether a probe's depth (H, W) is mostly valid, not too near, and not just a bare wall."""
    valid = (depth_m > 0.0) & (depth_m <= 10.0)
    if valid.mean() < 0.97:
        return False
    near, low, tenth, middle, high = np.quantile(depth_m[valid], [0.005, 0.02, 0.1, 0.5, 0.98])
    return bool(near > 0.22 and tenth > 0.3 and middle > 0.55 and high - low > 0.35 * middle)
