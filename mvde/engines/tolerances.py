"""How far an engine may be from the fp32 graph it was built from, per precision, with the reasons."""

from __future__ import annotations

from mvde.errors import ParityError
from mvde.records import ParityReport, Tolerance

TOLERANCES = {
    # Two libraries that sum the same products in another order differ by a few ulp per layer (2⁻²⁴ · √depth · gain);
    # 1e-4 relative is the promise of the export stage, and an engine must not be looser than what it is built from.
    "fp32": Tolerance(mean_rel=1e-4, p99_rel=1e-3, patch_mean=1e-3),
    # 11 bits of significand: 5e-4 per rounding, averaged over many; 0.3 % leaves AbsRel unchanged to three digits.
    "fp16": Tolerance(mean_rel=3e-3, p99_rel=2e-2, patch_mean=1e-2),
    # 8 bits of significand: eight times coarser than fp16.
    "bf16": Tolerance(mean_rel=1.5e-2, p99_rel=8e-2, patch_mean=3e-2),
    # 8-bit activations: accuracy against ground truth is gated when the graph is quantised; this catches what broke.
    "int8": Tolerance(mean_rel=3e-2, p99_rel=1.5e-1, patch_mean=5e-2),
    # 4 bits of significand: finer than int8 near zero, coarser near the largest value; gated like int8.
    "fp8": Tolerance(mean_rel=3e-2, p99_rel=1.5e-1, patch_mean=5e-2),
}


def check_tolerance(report: ParityReport, tolerance: Tolerance, depth_range: float, what: str) -> None:
    """Nothing, if ``report`` is inside ``tolerance`` for a model whose depths span ``depth_range``.

    Raises :class:`ParityError` naming each measure that is outside (NaN never passes).
    """
    measures = {
        "mean |Δdepth|/depth": (report.mean_rel, tolerance.mean_rel),
        "99th percentile of |Δdepth|/depth": (report.p99_rel, tolerance.p99_rel),
        "largest difference of a patch mean": (report.stats["mean"], tolerance.patch_mean * depth_range),
    }
    outside = [f"{name} is {got:.2e}, allowed {most:.1e}" for name, (got, most) in measures.items() if not got <= most]
    if outside:
        raise ParityError(
            f"{what} differs from the fp32 graph by more than allowed: {'; '.join(outside)}; nothing was written. "
            "Build another precision, or export the model again"
        )
