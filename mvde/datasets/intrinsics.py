"""Scaling of intrinsics to the size of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def intrinsics_at(
    intrinsics: Sequence[float] | NDArray[np.float32], own_size: tuple[int, int], size: tuple[int, ...]
) -> NDArray[np.float32] | None:
    """Scale intrinsics (fx, fy, cx, cy) in pixels from ``own_size`` to ``size``, both (H, W).

    ``None`` if the aspect ratios differ by more than a pixel: such a picture is a crop of unknown position. Pixel
    centres have integer coordinates.
    """
    if size == own_size:
        return np.array(intrinsics, dtype=np.float32)
    (own_height, own_width), (height, width) = own_size, size
    if abs(width * own_height - height * own_width) > max(own_size):
        return None
    across, down = width / own_width, height / own_height
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    scaled = (fx * across, fy * down, (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5)
    return np.array(scaled, dtype=np.float32)
