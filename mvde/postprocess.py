"""A network's map to depth and patch statistics in one pass: libmvde's kernel, or NumPy where there is no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mvde import native
from mvde.native import Postprocessed
from mvde.stats import LARGEST_DEPTH_M, numpy_patch_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray


def postprocess(
    raw: NDArray[np.float32],
    patch_size: int,
    stats: Sequence[str] = (),
    *,
    conversion: str = "linear",
    scale: float = 1.0,
    shift: float = 0.0,
    invalid: float = math.nan,
) -> Postprocessed:
    """Convert a network's map (H, W), float32, to depth (H, W), float32, and its patch statistics (N, S), float32.

    ``conversion`` is ``"linear"``, ``scale * x + shift``, or ``"inverse"``, ``1 / (scale * x + shift)`` of x > 0. A
    pixel is ``invalid`` if the result is not finite, not above 0, or above :data:`mvde.stats.LARGEST_DEPTH_M`. The
    statistics are those of :mod:`mvde.stats` of the depth; without names of columns, S is 0.
    """
    if native.is_available():
        depth, rows = native.postprocess(
            raw[None], patch_size, stats, conversion=conversion, scale=scale, shift=shift, invalid_m=invalid
        )
        return Postprocessed(depth[0], rows[0])
    return numpy_postprocess(raw, patch_size, stats, conversion=conversion, scale=scale, shift=shift, invalid=invalid)


def numpy_postprocess(
    raw: NDArray[np.float32],
    patch_size: int,
    stats: Sequence[str] = (),
    *,
    conversion: str = "linear",
    scale: float = 1.0,
    shift: float = 0.0,
    invalid: float = math.nan,
) -> Postprocessed:
    """Reference implementation of :func:`postprocess` in NumPy."""
    with np.errstate(all="ignore"):  # not finite where the map is not, or where the reciprocal of 0 is taken
        depth = raw * np.float32(scale) + np.float32(shift)
        if conversion == "inverse":
            depth = np.float32(1) / depth
        is_valid = (depth > 0) & (depth <= np.float32(LARGEST_DEPTH_M)) & ((conversion != "inverse") | (raw > 0))
    rows = numpy_patch_stats(np.where(is_valid, depth, np.float32(0))[None], patch_size, stats)[0]
    return Postprocessed(np.where(is_valid, depth, np.float32(invalid)), rows)
