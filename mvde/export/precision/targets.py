"""Error targets of the selection, and tolerances of the gate, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass

from mvde.precision import Precision
from mvde.records import GateTolerance


@dataclass(frozen=True)
class Target:
    """Relative depth error on the calibration images, mean and 99th percentile, at which selection stops."""

    mean_rel: float
    p99_rel: float


NEGLIGIBLE = 0.1
"""Share of the target below which a group is not worth keeping: it would cost casts without benefit."""


def target(precision: Precision) -> Target:
    """Error target for selecting the lowered nodes of a graph in ``precision``."""
    match precision:
        case Precision.FP32:
            return Target(mean_rel=0.0, p99_rel=0.0)
        case Precision.FP16:
            # One rounding to 11 bits is 2.4e-4 on average; a graph with its tail in fp32 reaches about that.
            return Target(mean_rel=5e-4, p99_rel=5e-3)
        case Precision.BF16:
            # One rounding to 8 bits is 2e-3 on average, so no tensor next to the output may be bf16. At 1.5e-3 the
            # shipped model's AbsRel changed by 1.3e-3 relative, because the patch embedding's rounding is biased; 1e-3
            # prevents that.
            return Target(mean_rel=1e-3, p99_rel=1e-2)
        case Precision.INT8:
            # Rounding the products' operands to 8 bits costs about 1 % in depth without clipping; a percentile far
            # above the mean indicates clipped ranges.
            return Target(mean_rel=1e-2, p99_rel=5e-2)
        case Precision.FP8:
            # Three mantissa bits: 1.8 % per operand on average, over sums of hundreds.
            return Target(mean_rel=1.5e-2, p99_rel=6e-2)


def gate_tolerance(precision: Precision) -> GateTolerance:
    """Tolerance of a graph in ``precision`` on held-out images."""
    match precision:
        case Precision.FP32:
            return GateTolerance(abs_rel=0.0, delta1=0.0, mean_rel=0.0, p99_rel=0.0)
        case Precision.FP16:
            # A lower float format must be interchangeable: AbsRel to three digits, and no more pixels across a δ1
            # threshold than the 0.5 % that lie within 1e-3 of it.
            return GateTolerance(abs_rel=1e-3, delta1=2e-3, mean_rel=1e-3, p99_rel=1e-2)
        case Precision.BF16:
            return GateTolerance(abs_rel=1e-3, delta1=2e-3, mean_rel=4e-3, p99_rel=4e-2)
        case Precision.INT8:
            # 8-bit operands trade accuracy for speed: 1 % of AbsRel is below the difference between two training runs.
            return GateTolerance(abs_rel=1e-2, delta1=1e-2, mean_rel=2e-2, p99_rel=1e-1)
        case Precision.FP8:
            # Coarser than int8 where values are spread evenly over the range: twice its allowance.
            return GateTolerance(abs_rel=2e-2, delta1=2e-2, mean_rel=3e-2, p99_rel=1.5e-1)
