"""A network's map to depth and patch statistics in one pass: libmvde's kernel, or NumPy where there is no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvde import native
from mvde.native import Postprocessed
from mvde.stats import LARGEST_DEPTH_M, masked_depth, numpy_patch_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Mask(NamedTuple):
    """A sky or mask output of a network: values (H, W), float32, the role ``"sky"`` or ``"mask"``, and threshold."""

    values: NDArray[np.float32]
    role: str
    threshold: float


def postprocess(
    raw: NDArray[np.float32],
    patch_size: int,
    stats: Sequence[str] = (),
    *,
    conversion: str = "linear",
    scale: float = 1.0,
    shift: float = 0.0,
    invalid: float = math.nan,
    mask: Mask | None = None,
    confidence: NDArray[np.float32] | None = None,
) -> Postprocessed:
    """Convert a network's map (H, W), float32, to depth (H, W), float32, and its patch statistics (N, S), float32.

    ``conversion`` is ``"linear"``, ``scale * x + shift``, or ``"inverse"``, ``1 / (scale * x + shift)`` of x > 0. A
    pixel is ``invalid`` if the result is not finite, not above 0, or above :data:`mvde.stats.LARGEST_DEPTH_M`. The
    statistics are those of :mod:`mvde.stats` of the depth; without names of columns, S is 0.

    Depth is +inf (0 if ``invalid`` is 0) where ``mask`` says sky, and ``invalid`` where it says that there is none.
    ``confidence`` (H, W), float32, is for the column ``conf``.
    """
    if not native.is_available():
        return numpy_postprocess(
            raw,
            patch_size,
            stats,
            conversion=conversion,
            scale=scale,
            shift=shift,
            invalid=invalid,
            mask=mask,
            confidence=confidence,
        )
    masking: dict[str, Any] = (
        {"mask": mask.values[None], "mask_role": mask.role, "mask_threshold": mask.threshold} if mask else {}
    )
    depth, rows = native.postprocess(
        raw[None],
        patch_size,
        stats,
        conversion=conversion,
        scale=scale,
        shift=shift,
        invalid_m=invalid,
        confidence=None if confidence is None else confidence[None],
        **masking,
    )
    return Postprocessed(depth[0], rows[0])


def numpy_postprocess(
    raw: NDArray[np.float32],
    patch_size: int,
    stats: Sequence[str] = (),
    *,
    conversion: str = "linear",
    scale: float = 1.0,
    shift: float = 0.0,
    invalid: float = math.nan,
    mask: Mask | None = None,
    confidence: NDArray[np.float32] | None = None,
) -> Postprocessed:
    """Reference implementation of :func:`postprocess` in NumPy."""
    with np.errstate(all="ignore"):  # not finite where the map is not, or where the reciprocal of 0 is taken
        depth = raw * np.float32(scale) + np.float32(shift)
        if conversion == "inverse":
            depth = np.float32(1) / depth
        is_valid = (depth > 0) & (depth <= np.float32(LARGEST_DEPTH_M)) & ((conversion != "inverse") | (raw > 0))
    depth = np.where(is_valid, depth, np.float32(math.nan))
    if mask is not None:
        depth = masked_depth(depth, *mask)
    confidences = None if confidence is None else confidence[None]
    rows = numpy_patch_stats(depth[None], patch_size, stats, confidence=confidences)[0]
    marked = np.isnan(depth) if invalid else ~np.isfinite(depth)
    return Postprocessed(np.where(marked, np.float32(invalid), depth), rows)
