"""Alignment of predicted depth to the scale of the ground truth.

NumPy is imported lazily: the command line lists :class:`Alignment` without it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Lower bound on aligned depth, which can be zero or negative; keeps logarithms and ratios finite.
SMALLEST_DEPTH_M = 1e-3


class Alignment(str, Enum):
    """How a prediction is fitted to an image's ground truth before computing metrics."""

    NONE = "none"
    MEDIAN = "median"
    """Multiply by the ratio of medians."""
    SCALE = "scale"
    """Multiply by the least-squares factor."""
    SCALE_SHIFT = "scale_shift"
    """Fit scale and shift in inverse depth by least squares (Ranftl et al., 2020)."""

    def __str__(self) -> str:
        return self.value


def check_alignment(text: Alignment | str) -> Alignment:
    """Parse an :class:`Alignment`; raises :class:`UsageError` for an unknown name."""
    try:
        return Alignment(text)
    except ValueError as error:
        raise UsageError(f"alignment {text!r} is unknown; use one of {', '.join(Alignment)}") from error


def align_depth(pred: Floats, target: Floats, alignment: Alignment | str) -> Floats:
    """Return ``pred`` (n,) in metres, aligned to ``target`` (n,).

    ``scale_shift`` clamps to the target's largest depth, which also replaces infinities.
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
