"""Parity tolerances of an engine relative to its fp32 graph, per precision, with reasons."""

from __future__ import annotations

from mvde.errors import ParityError
from mvde.precision import Precision
from mvde.records import ParityReport, Tolerance


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
