"""Clips by number: a path through a scene, things that move in it, and a video camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.synth import props
from mvde.datasets.synth.builder import FloatArray, SceneBuilder, tilted
from mvde.datasets.synth.filming import VideoCamera
from mvde.datasets.synth.paths import FPS, ClipKind, Path, sample_path
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
_PROBED_FRAMES = 6
# Four samples a pixel, by place (pixels from its centre) and moment (share of the exposure from its middle): a rotated
# grid, in which neither place nor moment repeats. One sample per pixel made up to a quarter of the scale flicker.
_SAMPLES = ((-0.125, -0.375, -0.375), (0.375, -0.125, 0.125), (-0.375, 0.125, 0.375), (0.125, 0.375, -0.125))


class RenderedClip(NamedTuple):
    """Frames of a clip as they are stored (see :mod:`mvde.datasets.clips`)."""

    kind: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    intrinsics: NDArray[np.float32]
    poses: NDArray[np.float64]
    is_cut: NDArray[np.bool_]


class _Mover(NamedTuple):
    """Instances that move over the floor at ``velocity`` (x, y) in m/s, from where they are in the middle frame."""

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

    def __init__(self, stream: tuple[int, int], size: tuple[int, int], num_frames: int) -> None:
        """Create a context for frames of ``size`` (height, width); ``stream`` seeds the random numbers."""
        self._stream, self._size, self._num_frames = stream, size, num_frames
        self._textures = build_textures()
        self._renderer = Renderer(self._textures, size)

    def clip(self, number: int) -> RenderedClip:
        """Return a clip, whose kind is that of its number in turn; it depends on stream, size, length and number."""
        key = (*self._stream, _CLIP_STREAM, number)
        kind = list(ClipKind)[number % len(ClipKind)]
        rng = np.random.default_rng((*key, 0))
        shots = self._shots(rng, key, kind)
        movers = self._movers(rng, shots[0].path) if kind is ClipKind.MOVING_THINGS else []
        camera, forgets = VideoCamera(np.random.default_rng((*key, 1))), bool(rng.random() < 0.5)
        rgb, depth, poses = [], [], []
        for shot in shots:
            self._renderer.set_scene(shot.scene)
            if shot.frames.start and forgets:
                camera.meter_anew()
            for frame in range(len(shot.frames)):
                if movers:
                    self._renderer.set_scene(_moved(shot.scene, movers, frame - self._num_frames / 2))
                rgb.append(camera.develop(self._exposed(shot, movers, frame, camera.shutter)))
                depth.append(_stored_depth(self._renderer.depth(shot.path.view(frame))))
                poses.append(_optical_pose(shot.path.view(frame)))
        cuts = np.zeros(self._num_frames, np.bool_)
        cuts[[shot.frames.start for shot in shots[1:]]] = True
        intrinsics = np.stack([_intrinsics(shot.path.view(0), self._size) for shot in shots for _ in shot.frames])
        return RenderedClip(str(kind), np.stack(rgb), np.stack(depth), intrinsics, np.stack(poses), cuts)

    def _shots(self, rng: np.random.Generator, key: tuple[int, ...], kind: ClipKind) -> list[_Shot]:
        """Return the runs of the camera: one, or two of different scenes for a clip with a cut."""
        num_frames = self._num_frames
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
            scene = build_scene(rng, self._textures.groups)
            self._renderer.set_scene(scene)
            for _ in range(_MAX_PATHS):
                path = sample_path(rng, scene, kind, self._num_frames)
                if path is not None and self._is_clear(path):
                    return scene, path
        raise BackendError(f"clip {key[-1]} of seed {key[0]} found no path of kind {kind}; use another seed")

    def _is_clear(self, path: Path) -> bool:
        """Whether the camera keeps away from things all along, and mostly sees more than a bare wall."""
        frames = [*range(0, self._num_frames, _PROBED_FRAMES), self._num_frames - 1]
        return all(_sees_a_room(self._renderer.probe(path.view(frame))) for frame in frames)

    def _movers(self, rng: np.random.Generator, path: Path) -> list[_Mover]:
        """Return a person and a small thing that cross the view from either side, 1 to 2.5 m ahead."""
        view = path.view(self._num_frames / 2)
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

    def _exposed(self, shot: _Shot, movers: list[_Mover], frame: int, shutter: float) -> FloatArray:
        """Return linear light (H, W, 3) of a frame: the mean over pixel and exposure."""
        total: FloatArray = np.zeros((*self._size, 3), np.float32)
        for across, down, moment in _SAMPLES:
            at = frame + moment * shutter
            if movers:
                self._renderer.set_instances(_moved(shot.scene, movers, at - self._num_frames / 2).instances)
            total += self._renderer.render(_shifted(shot.path.view(at), across, down, self._size))[0]
        return total / np.float32(len(_SAMPLES))


def _sees_a_room(depth_m: FloatArray) -> bool:
    valid = (depth_m > 0.0) & (depth_m <= MAX_DEPTH_M)
    if valid.mean() < 0.97:
        return False
    near, middle, high = np.quantile(depth_m[valid], [0.005, 0.5, 0.98])
    return bool(near > 0.22 and middle > 0.45 and high - middle > 0.15 * middle)


def _moved(scene: Scene, movers: list[_Mover], frames: float) -> Scene:
    """Return the scene with the movers where they are ``frames`` after the middle."""
    instances = dict(scene.instances)
    for mover in movers:
        for mesh, rows in mover.instances.items():
            placed = rows.copy()
            placed[:, 9:11] += (mover.velocity * frames / FPS).astype(np.float32)
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
