"""The numbers in which maps of a kind are compared and averaged over time, and the scale between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mvde.contract import DepthKind
from mvde.runtime.exact_math import exact_exp, exact_log
from mvde.runtime.picture_motion import cell_counts, cell_sums, lower_median, ordered_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

CELLS = 12
"""Patches a side whose means give a frame's scale."""

_UNITS = np.float32(65536.0)  # whole numbers of this size are summed: 1.5e-5 of a logarithm, and any order is exact
_LARGEST = np.float32(16.0)  # beyond it a difference counts as this much
_LEAST_SHARE = 0.7  # of a patch's pixels that must be known
_LEAST_PATCHES = 12  # of 144: below, the frame is taken to have the scale of the past
_LEAST_ZOOM = 0.1
_FIT_STEPS, _LEAST_SPREAD = 5, 1e-4  # a map of one hundredth of the first one's spread has no scale of its own
_LOG_SPAN = 1.4
"""Logarithm of the far over the near tenth of a room: makes a share of a map's span a difference of logarithms."""


class Domain(Protocol):
    """Conversion of maps to and from the domain, where NaN is no value, and their alignment to the past."""

    log_per_unit: np.float32
    """Difference of logarithms of depth that a difference of 1 stands for."""

    def begin(self, raw: Floats) -> None:
        """Take in the first map after a reset."""
        ...

    def enter(self, raw: Floats) -> Floats:
        """Convert a map (H, W) to the domain."""
        ...

    def leave(self, values: Floats) -> Floats:
        """Convert back."""
        ...

    def nearer(self, past: Floats, zoom: float) -> Floats:
        """Change the distances of the past as a zoom of the picture says."""
        ...

    def align(self, values: Floats, past: Floats, gain: float, opens: float, full: float) -> Floats:
        """Bring a map to the scale of the past but for a share of the change: see :func:`opened`."""
        ...


class LogDomain:
    """Logarithms: of distances, or of inverse depth that is 0 at infinity. A change of scale is a number to add."""

    def __init__(self, kind: DepthKind) -> None:
        self.log_per_unit = np.float32(1)
        self._sign = np.float32(-1 if kind.is_inverse else 1)

    def begin(self, raw: Floats) -> None:
        """Take nothing of the first map: logarithms have one unit."""

    def enter(self, raw: Floats) -> Floats:
        """Convert to logarithms."""
        return exact_log(raw)

    def leave(self, values: Floats) -> Floats:
        """Convert from logarithms."""
        return exact_exp(values)

    def nearer(self, past: Floats, zoom: float) -> Floats:
        """Add the logarithm of the zoom: what fills more of the picture than before has come nearer."""
        return past + exact_log(np.full(1, max(1.0 + zoom, _LEAST_ZOOM), np.float32)) * self._sign

    def align(self, values: Floats, past: Floats, gain: float, opens: float, full: float) -> Floats:
        """Subtract the median over patches of the mean change."""
        change = _patch_means((values - past,))
        if len(change) < _LEAST_PATCHES:
            return values
        shift = float(lower_median(change[:, 0]))
        return values - np.float32((1.0 - opened(gain, abs(shift), opens, full)) * shift)


class AffineDomain:
    """The map itself in units of its span: of inverse depth up to scale and shift, which change from frame to frame."""

    def __init__(self) -> None:
        self.log_per_unit = np.float32(_LOG_SPAN)
        self._origin, self._unit = np.float32(0), np.float32(1)

    def begin(self, raw: Floats) -> None:
        """Take the tenths of the first map after a reset as origin and, to a power of two, as unit."""
        known = raw[np.isfinite(raw) & (raw > 0)]
        if not known.size:
            return
        tenth = known.size // 10
        ends = np.partition(known, (tenth, known.size - 1 - tenth))
        span = ends[known.size - 1 - tenth] - ends[tenth]
        self._origin = ends[tenth]
        self._unit = np.ldexp(np.float32(1), np.frexp(span)[1]) if span > 0 else np.float32(1)

    def enter(self, raw: Floats) -> Floats:
        """Convert to units from the origin."""
        known = np.isfinite(raw) & (raw > 0)
        return (np.where(known, raw, np.float32(np.nan)) - self._origin) * (np.float32(1) / self._unit)

    def leave(self, values: Floats) -> Floats:
        """Convert back."""
        return values * self._unit + self._origin

    def nearer(self, past: Floats, zoom: float) -> Floats:
        """Leave the past as it is: without its shift nobody knows what a zoom does to it, and the fit takes that in."""
        return past

    def align(self, values: Floats, past: Floats, gain: float, opens: float, full: float) -> Floats:
        """Fit scale and shift of the map to the past over the means of patches."""
        means = _patch_means((values, past))
        if len(means) < _LEAST_PATCHES:
            return values
        scale, shift = robust_line(means[:, 0], means[:, 1])
        moved = float(lower_median(np.abs((scale * means[:, 0] + shift) - means[:, 0]))) * _LOG_SPAN
        kept = np.float32(1.0 - opened(gain, moved, opens, full))
        return values + kept * ((values * np.float32(scale) + np.float32(shift)) - values)


def opened(gain: float, change: float, opens: float, full: float) -> float:
    """Gain for a change: ``gain`` up to ``opens``, 1 from ``full`` on, and linear between."""
    return gain + (1.0 - gain) * min(max((change - opens) / (full - opens), 0.0), 1.0)


def robust_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shift of ``y`` = scale * ``x`` + shift by least squares with the weights of Geman and McClure (1985).

    The scale stays within a factor of two; it is 1 where ``x`` has no spread.
    """
    scale, shift = 1.0, float(lower_median(y - x))
    for _ in range(_FIT_STEPS):
        left = (scale * x + shift) - y
        spread = 3.0 * float(lower_median(np.abs(left))) + 1e-3
        weight = 1.0 / (1.0 + (left / spread) * (left / spread))
        weight = weight * weight
        total = float(ordered_sum(weight))
        mean_x, mean_y = float(ordered_sum(weight * x)) / total, float(ordered_sum(weight * y)) / total
        away = x - mean_x
        spread_x = float(ordered_sum(weight * away * away))
        slope = float(ordered_sum(weight * away * (y - mean_y))) / spread_x if spread_x > _LEAST_SPREAD * total else 1.0
        scale = min(max(slope, 0.5), 2.0)
        shift = mean_y - scale * mean_x
    return scale, shift


def _patch_means(maps: tuple[Floats, ...]) -> NDArray[np.float64]:
    """Means (P, M) of the maps (H, W) over the patches in which they are mostly known."""
    known = ~np.isnan(maps[0])
    for one in maps[1:]:
        known &= ~np.isnan(one)
    counts, sizes = cell_sums(known.astype(np.int64), CELLS), cell_counts(known.shape, CELLS)
    kept = counts >= _LEAST_SHARE * sizes
    means = []
    for one in maps:
        bounded = np.clip(np.where(known, one, np.float32(0)), -_LARGEST, _LARGEST)
        sums = cell_sums(np.rint(bounded * _UNITS).astype(np.int64), CELLS)
        means.append(sums[kept] / (counts[kept] * float(_UNITS)))
    return np.stack(means, axis=1)
