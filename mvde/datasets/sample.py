"""What every data set hands out: samples of RGB and metric depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mvde.camera import relative_focal


@dataclass(frozen=True)
class DepthSample:
    """One frame.

    ``rgb`` (H, W, 3) uint8 RGB; ``depth_m`` (H, W) float32 planar depth in metres, 0 or NaN where unknown (masked
    pixels of a masked array become 0);
    ``intrinsics`` (4,) float32 (fx, fy, cx, cy) in pixels of this frame, or None; ``name`` says where it came from.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics: NDArray[np.float32] | None
    name: str

    def __post_init__(self) -> None:
        if isinstance(self.depth_m, np.ma.MaskedArray):
            object.__setattr__(self, "depth_m", self.depth_m.filled(0))

    @property
    def focal(self) -> float | None:
        """Relative focal length (see :mod:`mvde.camera`), where the intrinsics are known."""
        return None if self.intrinsics is None else relative_focal(self.intrinsics, self.depth_m.shape)


class DepthDataset(Protocol):
    """A finite sequence of samples; reading one is independent of the others, so workers may share it."""

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """(Nearest, farthest) depth in metres that its sensor or renderer, or its protocol, calls ground truth."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, index: int) -> DepthSample:
        """Sample number ``index``, 0 <= index < len; raises DatasetError naming the file that is wrong."""
        ...
