"""Clips by number: a path through a scene, things that move in it, and a video camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.synth import props
from mvde.datasets.synth.builder import FloatArray, SceneBuilder, tilted
from mvde.datasets.synth.filming import CAMERA_HZ, Filming, VideoCamera
from mvde.datasets.synth.paths import ClipKind, Path, sample_path
from mvde.datasets.synth.renderer import Renderer
from mvde.datasets.synth.scene import Scene, build_scene
from mvde.datasets.synth.textures import build_textures
from mvde.datasets.synth.views import View
from mvde.errors import BackendError

MAX_DEPTH_M = 10.0
DEPTH_UNITS_PER_M = 5000.0
"""Stored value of one metre, as in TUM RGB-D: steps of 0.2 mm, 0.1 % at the nearest distances."""

_CLIP_STREAM = 0x76  # keeps the random streams of clips apart from those of single frames
_MAX_SCENES, _MAX_PATHS = 60, 15
_PROBED_STEPS = 6
# Four samples a pixel, by place (pixels from its centre) and moment (share of the exposure from its middle): a rotated
# grid, in which neither place nor moment repeats. One sample per pixel made up to a quarter of the scale flicker.
_SAMPLES = ((-0.125, -0.375, -0.375), (0.375, -0.125, 0.125), (-0.375, 0.125, 0.375), (0.125, 0.375, -0.125))
# Bands of rows that share a moment of a rolling shutter. Those of the four samples are set off by a quarter of a band,
# so that a turn of 40 degrees a second with 30 ms (4 of 192 pixels) goes in steps of an eighth of a pixel.
_NUM_BANDS = 8


class RenderedClip(NamedTuple):
    """Frames of a clip as they are stored (see :mod:`mvde.datasets.clips`)."""

    kind: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    intrinsics: NDArray[np.float32]
    poses: NDArray[np.float64]
    is_cut: NDArray[np.bool_]


class _Mover(NamedTuple):
    """Instances that move over the floor at ``velocity`` (x, y) in m/s, from where they are in the middle of a clip."""

    instances: dict[str, FloatArray]
    velocity: NDArray[np.float64]


@dataclass(frozen=True)
class _Shot:
    """One run of the camera: ``frames`` of the clip, the scene and the path."""

    frames: range
    scene: Scene
    path: Path


class ClipRenderer:
    """Renderer of clips by number; holds one OpenGL context."""

    def __init__(self, stream: tuple[int, int], filming: Filming) -> None:
        """Create a context; ``stream`` seeds the random numbers."""
        self._stream, self._filming, self._size = stream, filming, filming.size
        self._middle = filming.num_steps / 2
        self._textures = build_textures()
        self._renderer = Renderer(self._textures, filming.size)

    def clip(self, number: int) -> RenderedClip:
        """Return a clip, whose kind is that of its number in turn; it depends on stream, filming and number."""
        key = (*self._stream, _CLIP_STREAM, number)
        kind = list(ClipKind)[number % len(ClipKind)]
        rng = np.random.default_rng((*key, 0))
        shots = self._shots(rng, key, kind)
        movers = self._movers(rng, shots[0].path) if kind is ClipKind.MOVING_THINGS else []
        camera, forgets = VideoCamera(np.random.default_rng((*key, 1))), bool(rng.random() < 0.5)
        rgb, depth, poses, stride = [], [], [], self._filming.stride
        for shot in shots:
            self._renderer.set_scene(shot.scene)
            if shot.frames.start and forgets:
                camera.meter_anew()
            for frame in range(len(shot.frames)):
                moment = frame * stride
                if movers:
                    self._renderer.set_scene(_moved(shot.scene, movers, moment - self._middle))
                light = self._exposed(shot, movers, moment, camera.shutter)
                rgb.append(camera.develop(light, max(1, round(stride))))
                if movers and self._filming.readout:  # else they are where the last sample had them, 3 mm away at most
                    self._renderer.set_instances(_moved(shot.scene, movers, moment - self._middle).instances)
                depth.append(_stored_depth(self._renderer.depth(shot.path.view(moment))))
                poses.append(_optical_pose(shot.path.view(moment)))
        cuts = np.zeros(self._filming.num_frames, np.bool_)
        cuts[[shot.frames.start for shot in shots[1:]]] = True
        intrinsics = np.stack([_intrinsics(shot.path.view(0), self._size) for shot in shots for _ in shot.frames])
        return RenderedClip(str(kind), np.stack(rgb), np.stack(depth), intrinsics, np.stack(poses), cuts)

    def _shots(self, rng: np.random.Generator, key: tuple[int, ...], kind: ClipKind) -> list[_Shot]:
        """Return the runs of the camera: one, or two of different scenes for a clip with a cut."""
        num_frames = self._filming.num_frames
        scene, path = self._scene_and_path(rng, key, kind)
        if kind is not ClipKind.CUT or num_frames < 2:
            return [_Shot(range(num_frames), scene, path)]
        cut = min(max(int(rng.uniform(0.35, 0.65) * num_frames), 1), num_frames - 1)
        return [
            _Shot(range(cut), scene, path),
            _Shot(range(cut, num_frames), *self._scene_and_path(rng, key, kind)),
        ]

    def _scene_and_path(self, rng: np.random.Generator, key: tuple[int, ...], kind: ClipKind) -> tuple[Scene, Path]:
        for _ in range(_MAX_SCENES):
            scene = build_scene(rng, self._textures.groups, bare=self._filming.bare)
            self._renderer.set_scene(scene)
            for _ in range(_MAX_PATHS):
                path = sample_path(rng, scene, kind, self._filming.num_steps)
                if path is not None and self._is_clear(path):
                    return scene, path
        raise BackendError(f"clip {key[-1]} of seed {key[0]} found no path of kind {kind}; use another seed")

    def _is_clear(self, path: Path) -> bool:
        """Whether the camera keeps away from things all along, and mostly sees more than a bare wall."""
        num_steps = self._filming.num_steps
        steps = [*range(0, num_steps, _PROBED_STEPS), num_steps - 1]
        return all(_sees_a_room(self._renderer.probe(path.view(step))) for step in steps)

    def _movers(self, rng: np.random.Generator, path: Path) -> list[_Mover]:
        """Return a person and a small thing that cross the view from either side, 1 to 2.5 m ahead."""
        view = path.view(self._middle)
        ahead, right = -view.world_from_camera[:2, 2], view.world_from_camera[:2, 0]
        ahead, right = ahead / np.linalg.norm(ahead), right / np.linalg.norm(right)
        movers = []
        for planner in (props.person, props.bin_or_cone):
            builder = SceneBuilder(rng, self._textures.groups)
            _, draw = planner(builder)
            x, y = view.eye_m[:2] + ahead * rng.uniform(1.0, 2.5) + right * rng.normal(0.0, 0.2)
            with builder.at(x, y, 0.0, rng.uniform(0, 2 * math.pi)):
                draw(builder)
            movers.append(_Mover(builder.instances(), right * rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)))
        return movers

    def _exposed(self, shot: _Shot, movers: list[_Mover], middle: float, shutter: float) -> FloatArray:
        """Return linear light (H, W, 3) of a frame exposed around ``middle``: the mean over pixel and exposure."""
        total: FloatArray = np.zeros((*self._size, 3), np.float32)
        for number, (across, down, moment) in enumerate(_SAMPLES):
            for rows, delay in _bands(self._size[0], self._filming.readout, number / len(_SAMPLES)):
                at = middle + moment * shutter + delay
                if movers:
                    self._renderer.set_instances(_moved(shot.scene, movers, at - self._middle).instances)
                view = _shifted(shot.path.view(at), across, down, self._size)
                total[rows] += self._renderer.render(view, rows)[0][rows]
        return total / np.float32(len(_SAMPLES))


def _bands(height: int, readout: float, set_off: float) -> list[tuple[slice, float]]:
    """Return bands of rows that share a moment, and how long after the middle row's it is, in steps.

    ``set_off`` is the share of a band by which the first one is shorter.
    """
    if readout == 0.0:
        return [(slice(0, height), 0.0)]
    edges = np.clip(np.rint((np.arange(_NUM_BANDS + 2) - set_off) * height / _NUM_BANDS), 0, height).astype(int)
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return [(slice(top, end), ((top + end) / 2 / height - 0.5) * readout) for top, end in pairs if top < end]


def _sees_a_room(depth_m: FloatArray) -> bool:
    valid = (depth_m > 0.0) & (depth_m <= MAX_DEPTH_M)
    if valid.mean() < 0.97:
        return False
    near, middle, high = np.quantile(depth_m[valid], [0.005, 0.5, 0.98])
    return bool(near > 0.22 and middle > 0.45 and high - middle > 0.15 * middle)


def _moved(scene: Scene, movers: list[_Mover], steps: float) -> Scene:
    """Return the scene with the movers where they are ``steps`` after the middle."""
    instances = dict(scene.instances)
    for mover in movers:
        for mesh, rows in mover.instances.items():
            placed = rows.copy()
            placed[:, 9:11] += (mover.velocity * steps / CAMERA_HZ).astype(np.float32)
            instances[mesh] = np.concatenate([instances[mesh], placed]) if mesh in instances else placed
    return Scene(instances, scene.size, scene.obstacles, scene.work_tops, scene.lights)


def _shifted(view: View, across: float, down: float, size: tuple[int, int]) -> View:
    """Return the view turned so that it sees ``across`` and ``down`` pixels farther at its centre."""
    focal = float(view.intrinsics(size)[0])
    turn = tilted(1, -math.atan(across / focal)) @ tilted(0, -math.atan(down / focal))
    return View(view.eye_m, view.world_from_camera @ turn, view.vertical_fov)


def _stored_depth(depth_m: FloatArray) -> NDArray[np.uint16]:
    valid = (depth_m > 0.0) & (depth_m <= MAX_DEPTH_M)
    return np.where(valid, np.round(depth_m * DEPTH_UNITS_PER_M), 0.0).astype(np.uint16)


def _optical_pose(view: View) -> NDArray[np.float64]:
    """Return world from camera (3, 4), with x right, y down and z forward."""
    return np.column_stack([view.world_from_camera * np.array([1.0, -1.0, -1.0]), view.eye_m])


def _intrinsics(view: View, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return (fx, fy, cx, cy) with integer coordinates at the centres of pixels."""
    return view.intrinsics(size) - np.array([0.0, 0.0, 0.5, 0.5], np.float32)
