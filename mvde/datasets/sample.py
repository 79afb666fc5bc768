"""Sample type shared by all data sets: RGB and metric depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mvde.camera import Camera, relative_focal


@dataclass(frozen=True)
class DepthSample:
    """RGB frame with metric depth.

    ``rgb`` (H, W, 3) uint8 RGB; ``depth_m`` (H, W) float32 planar depth in metres, 0 or NaN where unknown (masked
    pixels of a masked array become 0); ``intrinsics`` (4,) float32 (fx, fy, cx, cy) in pixels of this frame, or None;
    ``name`` describes its origin. ``pose`` (3, 4) float64 is world from camera in metres, where it is known: x right,
    y down, z forward, the world's z up and its floor at 0.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics: NDArray[np.float32] | None
    name: str
    pose: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.depth_m, np.ma.MaskedArray):
            object.__setattr__(self, "depth_m", self.depth_m.filled(0))

    @property
    def camera(self) -> Camera | None:
        """Camera of the frame, ``None`` without intrinsics."""
        if self.intrinsics is None:
            return None
        fx, fy, cx, cy = (float(value) for value in self.intrinsics)
        return Camera(fx, fy, cx, cy, (self.depth_m.shape[0], self.depth_m.shape[1]))

    @property
    def focal(self) -> float | None:
        """Relative focal length (see :mod:`mvde.camera`), ``None`` without intrinsics."""
        return None if self.intrinsics is None else relative_focal(self.intrinsics, self.depth_m.shape)


class DepthDataset(Protocol):
    """Finite sequence of samples that are read independently of each other, so workers may share it."""

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """(Nearest, farthest) depth in metres that the sensor, renderer or protocol counts as ground truth."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __getitem__(self, index: int) -> DepthSample:
        """Return the sample at ``index``, 0 <= index < len. Raises DatasetError naming the faulty file."""
        ...


@runtime_checkable
class SceneDataset(DepthDataset, Protocol):
    """Data set that knows which frames are of one scene, clip, drive or room, and so share what a model gets wrong."""

    def scene(self, index: int) -> str:
        """Return the name of the scene of the frame at ``index``."""
        ...


@runtime_checkable
class ShardedDataset(DepthDataset, Protocol):
    """Data set in files of many frames each, of which a machine may hold a part; frames are in order of the shards."""

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Number of frames of each shard."""
        ...

    def check_shards(self, shards: Iterable[int]) -> None:
        """Raise DatasetError unless the shards of these numbers are here and complete."""
        ...
