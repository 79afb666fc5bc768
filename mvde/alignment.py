"""Bringing a predicted depth to the scale of the truth before both are compared.

NumPy is imported where it is used: the command line lists :class:`Alignment` without it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Aligned depth can come out zero or negative; it is held here so that logarithms and ratios stay finite.
SMALLEST_DEPTH_M = 1e-3


class Alignment(str, Enum):
    """What is fitted to the truth of an image before its metrics are taken."""

    NONE = "none"
    MEDIAN = "median"
    """Multiplies by the ratio of medians."""
    SCALE = "scale"
    """Multiplies by the least-squares factor."""
    SCALE_SHIFT = "scale_shift"
    """Fits scale and shift in inverse depth by least squares (Ranftl et al., 2020)."""

    def __str__(self) -> str:
        return self.value


def check_alignment(text: Alignment | str) -> Alignment:
    """The text as an :class:`Alignment`. Raises :class:`UsageError` where it is none."""
    try:
        return Alignment(text)
    except ValueError as error:
        raise UsageError(f"alignment {text!r} is unknown; use one of {', '.join(Alignment)}") from error


def align_depth(pred: Floats, target: Floats, alignment: Alignment | str) -> Floats:
    """``pred`` (n,) in metres after the alignment to ``target`` (n,).

    What ``scale_shift`` sends to infinity becomes the target's largest depth.
    """
    import numpy as np

    match check_alignment(alignment):
        case Alignment.NONE:
            return pred
        case Alignment.MEDIAN:
            return pred * (np.median(target) / max(float(np.median(pred)), SMALLEST_DEPTH_M))
        case Alignment.SCALE:
            return pred * (float(pred @ target) / max(float(pred @ pred), SMALLEST_DEPTH_M**2))
        case Alignment.SCALE_SHIFT:
            return _aligned_in_inverse_depth(pred, target)


def _aligned_in_inverse_depth(pred: Floats, target: Floats) -> Floats:
    import numpy as np

    inverse = 1 / np.maximum(pred, SMALLEST_DEPTH_M)
    columns = np.stack([inverse, np.ones_like(inverse)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, 1 / target, rcond=None)
    aligned = scale * inverse + shift
    depth: Floats = 1 / np.maximum(aligned, 1 / target.max())
    return depth
