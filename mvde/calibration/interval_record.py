"""Intervals in the calibration file: factors by predicted distance, and how well they held on scenes left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from mvde.schema import expect

MAX_INTERVAL_BINS = 64
"""Bins of a table that readers accept."""
_LARGEST_FACTOR = 1e6


@dataclass(frozen=True)
class IntervalTable:
    """Factors of a patch's predicted mean, by bins of that mean in metres.

    ``edges_m`` are ascending; bin 0 is below the first, and an edge belongs to the bin above it. The interval is from
    mean * ``lo`` to mean * ``hi`` of the bin.
    """

    edges_m: tuple[float, ...]
    lo: tuple[float, ...]
    hi: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise :class:`ManifestError` for values that do not fit together."""
        _check_edges("intervals.mean.edges_m", self.edges_m)
        _check_factors("intervals.mean.lo", self.lo, len(self.edges_m) + 1)
        _check_factors("intervals.mean.hi", self.hi, len(self.edges_m) + 1)
        are_ordered = all(low <= high for low, high in zip(self.lo, self.hi, strict=True))
        expect(are_ordered, "intervals.mean.lo", self.lo, "at most intervals.mean.hi")


@dataclass(frozen=True)
class NearestTable:
    """Factors of a patch's predicted minimum, by bins of that minimum in metres as in :class:`IntervalTable`."""

    edges_m: tuple[float, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise :class:`ManifestError` for values that do not fit together."""
        _check_edges("intervals.nearest.edges_m", self.edges_m)
        _check_factors("intervals.nearest.factors", self.factors, len(self.edges_m) + 1)


@dataclass(frozen=True, kw_only=True)
class HeldOutRecord:
    """What intervals were made of, and their coverage in scenes that were left out in turn, a fifth at a time.

    ``patches`` is the share of patches whose true mean is inside, ``scenes`` the same averaged over scenes,
    ``worst_scenes`` that of the scene that a tenth of the scenes are below, ``bins`` of each bin of distance,
    ``nearest`` the share of patches whose nearest point is beyond the bound. ``width`` is the mean width in metres over
    that of one interval for all distances.
    """

    num_scenes: int
    num_frames: int
    num_patches: int
    patches: float
    scenes: float
    worst_scenes: float
    bins: tuple[float, ...]
    nearest: float
    width: float


@dataclass(frozen=True, kw_only=True)
class IntervalsRecord:
    """Intervals of one graph's depth: with probability ``coverage`` for a patch's mean, ``nearest_coverage`` below it.

    ``camera_factor`` are the least and largest f / f_canonical of the frames; 1 for kinds without a canonical camera.
    """

    coverage: float
    nearest_coverage: float
    mean: IntervalTable
    nearest: NearestTable
    camera_factor: tuple[float, float]
    held_out: HeldOutRecord

    def __post_init__(self) -> None:
        """Raise :class:`ManifestError` for values that do not fit together."""
        for key in ("coverage", "nearest_coverage"):
            share = getattr(self, key)
            expect(0 < share < 1, f"intervals.{key}", share, "a number between 0 and 1")
        low, high = self.camera_factor
        expect(0 < low <= high, "intervals.camera_factor", self.camera_factor, "0 < least <= largest")


def _check_edges(key: str, edges: tuple[float, ...]) -> None:
    expect(len(edges) < MAX_INTERVAL_BINS, key, len(edges), f"at most {MAX_INTERVAL_BINS - 1} numbers")
    is_ascending = all(low < high for low, high in pairwise((0.0, *edges, math.inf)))
    expect(is_ascending, key, edges, "ascending numbers above 0")


def _check_factors(key: str, factors: tuple[float, ...], count: int) -> None:
    expect(len(factors) == count, key, factors, f"{count} numbers, one more than edges_m")
    are_positive = all(0 < one < _LARGEST_FACTOR for one in factors)
    expect(are_positive, key, factors, f"numbers above 0 and below {_LARGEST_FACTOR:g}")


def interval_rows(intervals: IntervalsRecord) -> list[tuple[str, str]]:
    """Label and formatted value of what a user needs to know of intervals."""
    held, edges = intervals.held_out, ", ".join(f"{edge:.3g}" for edge in intervals.mean.edges_m) or "none"
    factors = zip(intervals.mean.lo, intervals.mean.hi, strict=True)
    low, high = intervals.camera_factor
    return [
        ("intervals", f"{intervals.coverage:.0%} for a patch's mean; {intervals.nearest_coverage:.0%} for its nearest"),
        ("bins", f"edges at {edges} m; times {', '.join(f'{one:.3f} to {other:.3f}' for one, other in factors)}"),
        (
            "coverage",
            f"in scenes left out: {held.patches:.1%} of patches, {held.scenes:.1%} in the mean over scenes, "
            f"{held.worst_scenes:.1%} in the scene that a tenth are below; by bin "
            f"{', '.join(f'{one:.1%}' for one in held.bins)}; nearest {held.nearest:.1%}",
        ),
        ("width", f"{held.width:.2f} of one interval for all distances, in metres"),
        (
            "scenes",
            f"{held.num_scenes}, with {held.num_frames} frames and {held.num_patches} patches; f / f_canonical "
            f"{low:.3g} to {high:.3g}",
        ),
    ]
