"""Frames that are rendered when they are asked for, with the variations of :mod:`~mvde.datasets.synth.variations`.

Frame ``i`` depends only on (seed, split, i), like those of ``mvde data synth``, but its scenes, cameras and noise are
others; nothing is stored. Eight frames in a row share a scene.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mvde.datasets.sample import DepthSample
from mvde.datasets.synth import props
from mvde.datasets.synth.builder import FloatArray, SceneBuilder
from mvde.datasets.synth.develop import develop
from mvde.datasets.synth.outdoor import FAR_M, build_outdoor, is_good_outdoor_view, sample_outdoor_view
from mvde.datasets.synth.renderer import NEAR_M, Renderer
from mvde.datasets.synth.scene import Scene, build_scene
from mvde.datasets.synth.sensor import expose
from mvde.datasets.synth.textures import TextureSet, build_textures
from mvde.datasets.synth.variations import Variations
from mvde.datasets.synth.views import View, is_good_view, sample_view
from mvde.errors import BackendError

if TYPE_CHECKING:
    from mvde.datasets.splits import Split

VIEWS_PER_SCENE = 8
_MAX_TRIES = 40
_STREAM = 40
"""First number of the random streams, so that no scene equals one of ``mvde data synth``."""


class VariedFrames:
    """Data set of ``length`` frames whose longer side has ``side`` pixels, rendered at each access.

    Each process makes its own OpenGL context at its first access; a context does not survive a fork, so workers have to
    be spawned. Raises :class:`BackendError` without OpenGL.
    """

    def __init__(
        self,
        side: int,
        length: int,
        seed: int,
        split: Split,
        variations: Variations | None = None,
        textures: TextureSet | None = None,
    ) -> None:
        self.variations = variations or Variations()
        self._side, self._length = side, length
        self._stream = (_STREAM, seed, split.stream)
        self._given_textures = textures
        self._renderer: Renderer | None = None
        self._loaded: tuple[int, int] | None = None
        self._scene: Scene | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the OpenGL context, which belongs to its process."""
        return {**self.__dict__, "_renderer": None, "_loaded": None, "_scene": None}

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """Near plane of the renderer, and the largest depth kept, in metres."""
        return NEAR_M, self.variations.max_depth_m

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < self._length:
            raise IndexError(f"frame {index} of {self._length}")
        number, view_number = divmod(index, VIEWS_PER_SCENE)
        for attempt in range(_MAX_TRIES):  # a scene without a good view is replaced by the next of its random stream
            scene = self._load(number, attempt)
            sample = self._frame(scene, np.random.default_rng((*self._stream, number, attempt, view_number)), index)
            if sample is not None:
                return sample
        raise BackendError(f"scene {number} has no good view after {_MAX_TRIES} tries; use another seed")

    def scene(self, index: int) -> str:
        """Return the name of the scene that the frame is a view of."""
        return f"scene {index // VIEWS_PER_SCENE}"

    def _load(self, number: int, attempt: int) -> Scene:
        """Build a scene and load it into the renderer, unless it is there already."""
        if self._renderer is None:
            self._textures = self._given_textures or build_textures()
            self._renderer = Renderer(self._textures, (self._side, self._side), FAR_M)
        if self._scene is None or self._loaded != (number, attempt):
            rng = np.random.default_rng((*self._stream, number, attempt))
            self._scene, self._loaded = self._build(rng), (number, attempt)
            self._renderer.set_scene(self._scene)
        return self._scene

    def _build(self, rng: np.random.Generator) -> Scene:
        groups = self._textures.groups
        if rng.random() < self.variations.outdoor_share:
            return build_outdoor(rng, groups)
        scene = build_scene(rng, groups)
        return with_people(scene, rng, groups, int(rng.integers(0, self.variations.people + 1)))

    def _frame(self, scene: Scene, rng: np.random.Generator, index: int) -> DepthSample | None:
        assert self._renderer is not None
        is_outdoor = not scene.work_tops and scene.size[0] >= 60.0
        for _ in range(_MAX_TRIES):
            view = sample_outdoor_view(rng, scene) if is_outdoor else sample_view(rng, scene)
            fov = math.radians(rng.uniform(*self.variations.fov_deg))
            view = dataclasses.replace(view, vertical_fov=fov)  # the square that is rendered: as wide as it is high
            aspect = float(rng.choice(self.variations.aspects))
            probe = self._renderer.probe(view)
            is_good = is_good_outdoor_view(probe, self.variations.max_depth_m) if is_outdoor else is_good_view(probe)
            if is_good:
                linear, depth_m = self._renderer.render(view)
                return self._sample(view, linear, depth_m, aspect, rng, index)
        return None

    def _sample(
        self, view: View, linear: FloatArray, depth_m: FloatArray, aspect: float, rng: np.random.Generator, index: int
    ) -> DepthSample:
        """Cut the middle of the square in the aspect ratio, and store it as a camera would."""
        box, intrinsics = _cut(view, self._side, aspect)
        rgb = expose(develop(linear[box].copy(), rng), rng, self.variations)
        known = (depth_m > 0.0) & (depth_m <= self.variations.max_depth_m)
        depth = np.where(known, depth_m, np.float32(0.0))[box]
        return DepthSample(rgb, np.ascontiguousarray(depth), intrinsics, f"varied frame {index}")


def _cut(view: View, side: int, aspect: float) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]]:
    """Middle part of a square of ``side`` pixels that is ``aspect`` times as wide as high, and its intrinsics."""
    height, width = (max(16, round(side / aspect)), side) if aspect >= 1 else (side, max(16, round(side * aspect)))
    top, left = (side - height) // 2, (side - width) // 2
    fx, fy, cx, cy = view.intrinsics((side, side))
    intrinsics = np.array([fx, fy, cx - left, cy - top], np.float32)
    return (slice(top, top + height), slice(left, left + width)), intrinsics


def with_people(scene: Scene, rng: np.random.Generator, groups: dict[str, tuple[int, ...]], count: int) -> Scene:
    """Return the scene with up to ``count`` people who stand where nothing else does."""
    builder, taken = SceneBuilder(rng, groups), list(scene.obstacles)
    for _ in range(count):
        piece, draw = props.person(builder)
        for _ in range(6):
            x, y = rng.uniform(0.4, scene.size[0] - 0.4), rng.uniform(0.4, scene.size[1] - 0.4)
            reach = max(piece.width, piece.depth) / 2 + 0.05
            rect = (x - reach, y - reach, x + reach, y + reach)
            if not any(rect[0] < o[2] and o[0] < rect[2] and rect[1] < o[3] and o[1] < rect[3] for o in taken):
                taken.append(rect)
                with builder.at(x, y, 0.0, rng.uniform(0, 2 * math.pi)):
                    draw(builder)
                break
    more = builder.instances()
    names = {**scene.instances, **more}
    merged = {name: np.concatenate([part[name] for part in (scene.instances, more) if name in part]) for name in names}
    return dataclasses.replace(scene, instances=merged, obstacles=tuple(taken))
