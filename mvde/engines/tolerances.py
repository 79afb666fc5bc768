"""Parity tolerances of an engine relative to its fp32 graph, per precision, with reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import ParityError
from mvde.precision import Precision
from mvde.records import ParityReport, Tolerance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.manifest import OutputSpec


def tolerance_of(precision: Precision) -> Tolerance:
    """Tolerance of an engine in that precision."""
    match precision:
        case Precision.FP32:
            # Summation order differs between libraries, which costs a few ulp per layer (2⁻²⁴ · √depth · gain). The
            # export stage guarantees 1e-4 relative; an engine must not be looser than its graph.
            return Tolerance(mean_rel=1e-4, p99_rel=1e-3, patch_mean=1e-3)
        case Precision.FP16:
            # 11 bits of significand: 5e-4 per rounding, averaged over many; 0.3 % leaves AbsRel unchanged to three
            # digits.
            return Tolerance(mean_rel=3e-3, p99_rel=2e-2, patch_mean=1e-2)
        case Precision.BF16:
            # 8 bits of significand: eight times coarser than fp16.
            return Tolerance(mean_rel=1.5e-2, p99_rel=8e-2, patch_mean=3e-2)
        case Precision.INT8:
            # 8-bit activations. Accuracy against ground truth is gated at quantisation; this catches gross errors.
            return Tolerance(mean_rel=3e-2, p99_rel=1.5e-1, patch_mean=5e-2)
        case Precision.FP8:
            # 4 bits of significand: finer than int8 near zero, coarser near the maximum; gated like int8.
            return Tolerance(mean_rel=3e-2, p99_rel=1.5e-1, patch_mean=5e-2)


def check_tolerance(report: ParityReport, tolerance: Tolerance, depth_range: float, what: str) -> None:
    """Raise :class:`ParityError` naming each measure of ``report`` that exceeds ``tolerance`` (NaN never passes).

    ``depth_range`` is the span of the model's depth, in its unit; for inverse kinds that of the maps is used.
    """
    span = depth_range if report.reference_range is None else report.reference_range
    measures = {
        f"mean {report.difference}": (report.mean_rel, tolerance.mean_rel),
        f"99th percentile of {report.difference}": (report.p99_rel, tolerance.p99_rel),
        "largest difference of a patch mean": (report.stats["mean"], tolerance.patch_mean * span),
    }
    outside = [f"{name} is {got:.2e}, allowed {most:.1e}" for name, (got, most) in measures.items() if not got <= most]
    if outside:
        raise ParityError(
            f"{what} differs from the fp32 graph by more than allowed: {'; '.join(outside)}; nothing was written. "
            "Build another precision, or export the model again"
        )


def check_output(
    output: OutputSpec,
    candidate: NDArray[np.float32],
    reference: NDArray[np.float32],
    tolerance: Tolerance,
    what: str,
) -> None:
    """Raise :class:`ParityError` if a sky, mask or confidence map (K, H, W) differs more than ``tolerance.mean_rel``.

    Of a mask that is the share of pixels on the other side of the threshold, which is all that is used of it; of a
    confidence map the mean difference, relative to the range of the reference. NaN never passes.
    """
    if output.threshold is not None:
        measure = f"pixels of {output.name!r} on the other side of {output.threshold:g}"
        is_at_least = [one >= output.threshold for one in (candidate, reference)]
        got = float(np.mean((is_at_least[0] != is_at_least[1]) | np.isnan(candidate)))
    else:
        measure = f"mean difference of {output.name!r} relative to its range"
        span = max(float(np.ptp(reference)), 1e-2 * float(np.abs(reference).max()), 1e-6)
        got = float(np.abs(candidate.astype(np.float64) - reference).mean()) / span
    if not got <= tolerance.mean_rel:
        raise ParityError(
            f"{what} differs from the fp32 graph by more than allowed: {measure}: {got:.2e}, allowed "
            f"{tolerance.mean_rel:.1e}; nothing was written. Build another precision, or export the model again"
        )
