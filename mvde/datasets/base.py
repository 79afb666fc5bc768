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

    ``rgb`` (H, W, 3) uint8 RGB; ``depth_m`` (H, W) float32 planar depth in metres, 0 or NaN where unknown;
    ``intrinsics`` (4,) float32 (fx, fy, cx, cy) in pixels of this frame, or None; ``name`` says where it came from.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    intrinsics: NDArray[np.float32] | None
    name: str

    def camera_factor(self, canonical_focal: float | None) -> np.float32:
        """What depth for the camera of ``canonical_focal`` (see :mod:`mvde.camera`) is multiplied by for this frame's.

        1 where there is no canonical camera, or no intrinsics to say how this one differs.
        """
        if canonical_focal is None or self.intrinsics is None:
            return np.float32(1)
        return np.float32(relative_focal(self.intrinsics, self.depth_m.shape) / canonical_focal)


class DepthDataset(Protocol):
    """A finite sequence of samples; reading one is independent of the others, so workers may share it."""

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, index: int) -> DepthSample:
        """Sample number ``index``, 0 <= index < len; raises DatasetError naming the file that is wrong."""
        ...
