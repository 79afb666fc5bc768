"""Patch statistics as images: one value per patch, NaN where a patch has no valid pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.result import DepthResult


def patch_images(result: DepthResult) -> dict[str, NDArray[np.float32]]:
    """Image (rows, columns), float32, of each column of a frame's statistics, by the column's name.

    Rows of statistics hold 0 for a patch without a valid pixel; people and other programs would take it for near.
    """
    names, stats = result.stat_names, result.stats
    is_empty = stats[:, names.index("valid")] == 0 if "valid" in names else ~stats.any(axis=1)
    images = {}
    for index, name in enumerate(names):
        values = stats[:, index].copy()
        if name != "valid":
            values[is_empty] = math.nan
        images[name] = values.reshape(result.grid)
    return images
