"""Alignment of predicted depth to the scale of the ground truth.

NumPy is imported lazily: the command line lists :class:`Alignment` without it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from mvde.contract import DepthKind
from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Lower bound on aligned depth, which can be zero or negative; keeps logarithms and ratios finite.
SMALLEST_DEPTH_M = 1e-3

LARGEST_DEPTH_M = 1e9
"""Depth of an inverse depth of 0."""


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


def default_alignment(kind: DepthKind) -> Alignment:
    """Alignment that a map of ``kind`` needs to be held against metres."""
    match kind:
        case DepthKind.METRIC | DepthKind.METRIC_FOCAL | DepthKind.INVERSE_CANONICAL:
            return Alignment.NONE
        case DepthKind.SCALE_INVARIANT:
            return Alignment.MEDIAN
        case DepthKind.INVERSE_RELATIVE:
            return Alignment.SCALE_SHIFT


def align_map(pred: Floats, target: Floats, alignment: Alignment | str, kind: DepthKind) -> Floats:
    """Depth (n,) in metres of a map of ``kind`` (n,), aligned to ``target`` (n,) in metres.

    Inverse depth at or below 0 is farther than any target: it becomes the largest finite depth, or with
    ``scale_shift`` the target's largest. Raises :class:`UsageError` for another alignment of ``inverse_relative``,
    whose shift would be left out.
    """
    import numpy as np

    alignment = check_alignment(alignment)
    if not kind.is_inverse:
        return align_depth(pred, target, alignment)
    if alignment is Alignment.SCALE_SHIFT:
        return _fitted_inverse(pred, target)
    if kind is DepthKind.INVERSE_RELATIVE:
        raise UsageError(
            f"{kind} is known up to scale and shift, which alignment {alignment} does not fit; use "
            f"{Alignment.SCALE_SHIFT}"
        )
    return align_depth(1 / np.maximum(pred, 1 / LARGEST_DEPTH_M), target, alignment)


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

    return _fitted_inverse(1 / np.maximum(pred, SMALLEST_DEPTH_M), target)


def _fitted_inverse(inverse: Floats, target: Floats) -> Floats:
    """Depth of inverse depth whose scale and shift are fitted to ``target``, at most the target's largest."""
    import numpy as np

    scale, shift = fit_inverse(inverse, target)
    depth: Floats = 1 / np.maximum(scale * inverse + shift, 1 / target.max())
    return depth


def fit_inverse(inverse: Floats, target: Floats) -> tuple[float, float]:
    """Scale and shift of inverse depth (n,) that fit 1 / ``target`` (n,) by least squares (Ranftl et al., 2020)."""
    import numpy as np

    columns = np.stack([inverse, np.ones_like(inverse)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, 1 / target, rcond=None)
    return float(scale), float(shift)
