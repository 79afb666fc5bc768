"""Parity: differences between two stages of the same model in depth and in patch statistics.

Differences of depth are relative to depth. Inverse kinds have values at and around 0, where that says nothing, and an
offset that means nothing: their differences are relative to the range of the reference map, its 99th minus its 1st
percentile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvde.contract import DepthKind
from mvde.errors import ParityError, UsageError
from mvde.records import ParityReport
from mvde.stats import DEFAULT_STATS, depth_to_patch_stats

MIN_REFERENCE_M = 1e-6
"""Lower bound of the divisor of relative differences, which are meaningless below it."""

MIN_RANGE_SHARE = 1e-2
"""Lower bound of an inverse map's range, as a fraction of its largest value: a picture of one flat wall has hardly any
range, and the rounding of its level (1e-6 of it in float32) is no difference of depth."""


def compare_depth(
    candidate_m: NDArray[np.floating[Any]],
    reference_m: NDArray[np.floating[Any]],
    patch_size: int,
    *,
    kind: DepthKind = DepthKind.METRIC,
    stats: Sequence[str] = DEFAULT_STATS,
    min_depth: float | None = None,
    max_depth: float | None = None,
) -> ParityReport:
    """Measure the differences of ``candidate_m`` from ``reference_m``, both (B, H, W) float, maps of ``kind``.

    A non-finite pixel in either makes the relative differences infinite rather than being ignored, so that an engine
    that overflows fails. ``min_depth`` and ``max_depth`` (in the map's unit) bound the valid depths in the statistics.
    Raises :class:`UsageError` if the shapes differ or are not (B, H, W).
    """
    candidate, reference = np.asarray(candidate_m, np.float64), np.asarray(reference_m, np.float64)
    if candidate.shape != reference.shape or candidate.ndim != 3 or candidate.size == 0:
        raise UsageError(
            f"parity compares two depth batches of the same shape (B, H, W), but got {candidate.shape} and "
            f"{reference.shape}"
        )
    difference_m = np.abs(candidate - reference)
    ranges = _ranges(reference) if kind.is_inverse else None
    relative = difference_m / (np.maximum(np.abs(reference), MIN_REFERENCE_M) if ranges is None else ranges)
    difference_m[~np.isfinite(difference_m)] = np.inf
    relative[~np.isfinite(relative)] = np.inf
    columns = {
        name: _max_difference(candidate_m, reference_m, patch_size, name, min_depth, max_depth) for name in stats
    }
    return ParityReport(
        max_rel=float(relative.max()),
        mean_rel=float(relative.mean()),
        p99_rel=float(np.quantile(relative, 0.99, method="higher")),
        max_abs_m=float(difference_m.max()),
        num_images=candidate.shape[0],
        stats=columns,
        reference_range=None if ranges is None else float(ranges.min()),
    )


def merge_reports(reports: Sequence[ParityReport]) -> ParityReport:
    """Merge reports of the same image size: maximum of maxima, mean of means, worst quantile, smallest range."""
    if not reports:
        raise UsageError("there is no parity report to merge; compare at least one image")
    num_images = sum(report.num_images for report in reports)
    return ParityReport(
        max_rel=max(report.max_rel for report in reports),
        mean_rel=sum(report.mean_rel * report.num_images for report in reports) / num_images,
        p99_rel=max(report.p99_rel for report in reports),
        max_abs_m=max(report.max_abs_m for report in reports),
        num_images=num_images,
        stats={name: max(report.stats[name] for report in reports) for name in reports[0].stats},
        reference_range=min((one.reference_range for one in reports if one.reference_range is not None), default=None),
    )


def check(report: ParityReport, tolerance: float, what: str = "the candidate") -> None:
    """Raise :class:`ParityError` unless the maximum relative difference is within ``tolerance``; NaN fails."""
    if not report.max_rel <= tolerance:
        raise ParityError(
            f"{what} differs from its reference by more than allowed: max {report.difference} is {report.max_rel:.2e}, "
            f"expected at most {tolerance:.1e} ({report}); nothing was written"
        )


def _ranges(reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """99th minus 1st percentile of the finite pixels of each map, (B, 1, 1), bounded below."""
    found = np.empty((len(reference), 1, 1))
    for index, one in enumerate(reference):
        finite = one[np.isfinite(one)]
        low, high = np.quantile(finite, (0.01, 0.99)) if finite.size else (0.0, 0.0)
        level = float(np.abs(finite).max()) if finite.size else 0.0
        found[index] = max(high - low, MIN_RANGE_SHARE * level, MIN_REFERENCE_M)
    return found


def _max_difference(
    candidate_m: NDArray[np.floating[Any]],
    reference_m: NDArray[np.floating[Any]],
    patch_size: int,
    name: str,
    min_depth: float | None,
    max_depth: float | None,
) -> float:
    columns = [
        depth_to_patch_stats(depth_m, patch_size, (name,), min_depth=min_depth, max_depth=max_depth)
        for depth_m in (candidate_m, reference_m)
    ]
    return float(np.max(np.abs(np.asarray(columns[0], np.float64) - np.asarray(columns[1], np.float64))))
