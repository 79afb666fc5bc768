"""Ground truth of an engine's patches: from the frame's depth, through the placement of the frame in the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.placement import Placement

MIN_KNOWN = 0.9
"""Share of a patch's pixels in the frame whose depth has to be known."""


class PatchTruth(NamedTuple):
    """True mean and nearest depth of patches (N,), float64, in metres, and whether enough is known of them."""

    mean_m: NDArray[np.float64]
    nearest_m: NDArray[np.float64]
    is_known: NDArray[np.bool_]


def patch_truth(
    depth_m: NDArray[np.float32], counted: NDArray[np.bool_], placement: Placement, patch: int
) -> PatchTruth:
    """Truth of patches of ``patch`` pixels of the input, from depth (H, W) of the frame where ``counted`` (H, W).

    A pixel belongs to the patch that its centre falls into.
    """
    source, target = placement.source_box, placement.target_box
    rows = _patches_of(source.size[0], target.top, target.size[0], patch)
    columns = _patches_of(source.size[1], target.left, target.size[1], patch)
    num_rows, num_columns = (side // patch for side in placement.target_size)
    number = (rows[:, None] * num_columns + columns).ravel()
    seen, known = depth_m[source.slices].ravel(), counted[source.slices].ravel()
    num_patches = num_rows * num_columns
    all_pixels = np.bincount(number, minlength=num_patches)
    num_known = np.bincount(number[known], minlength=num_patches)
    total = np.bincount(number[known], seen[known].astype(np.float64), num_patches)
    nearest = np.full(num_patches, np.inf)
    np.minimum.at(nearest, number[known], seen[known].astype(np.float64))
    is_known = (num_known > 0) & (num_known >= MIN_KNOWN * all_pixels)
    return PatchTruth(total / np.maximum(num_known, 1), np.where(num_known > 0, nearest, 0.0), is_known)


def _patches_of(length: int, target_first: int, target_length: int, patch: int) -> NDArray[np.int64]:
    """Patch of each pixel of a side of the frame's box, (length,)."""
    centres = (np.arange(length) + 0.5) * (target_length / length) + target_first
    found: NDArray[np.int64] = (centres // patch).astype(np.int64)
    return found
