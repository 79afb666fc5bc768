"""What a typed graph is aimed at while it is decided, and what it must hold to be written, with the reasons."""

from __future__ import annotations

from dataclasses import dataclass

from mvde.precision import Precision
from mvde.records import GateTolerance


@dataclass(frozen=True)
class Target:
    """Relative depth error on the calibration images, mean and 99th percentile over pixels, at which deciding ends."""

    mean_rel: float
    p99_rel: float


NEGLIGIBLE = 0.1
"""Share of the target below which a group is not worth keeping: it would cost casts and change nothing."""


def target(precision: Precision) -> Target:
    """What deciding what stays of a graph in ``precision`` ends at."""
    match precision:
        case Precision.FP32:
            return Target(mean_rel=0.0, p99_rel=0.0)
        case Precision.FP16:
            # One rounding to 11 bits is 2.4e-4 on average; a graph whose tail stays in fp32 reaches about that.
            return Target(mean_rel=5e-4, p99_rel=5e-3)
        case Precision.BF16:
            # One rounding to 8 bits is 2e-3 on average, so that no tensor next to the output may be bf16. At 1.5e-3
            # AbsRel of the shipped model moved by 1.3e-3 of itself, because the patch embedding's rounding has a bias;
            # 1e-3 keeps it.
            return Target(mean_rel=1e-3, p99_rel=1e-2)
        case Precision.INT8:
            # Rounding the products' operands to 8 bits leaves about 1 % in depth where no range was cut short; a
            # percentile far above the mean is the sign of ranges that were.
            return Target(mean_rel=1e-2, p99_rel=5e-2)
        case Precision.FP8:
            # Three bits after the leading one: 1.8 % per operand on average, over sums of hundreds.
            return Target(mean_rel=1.5e-2, p99_rel=6e-2)


def gate_tolerance(precision: Precision) -> GateTolerance:
    """What a graph in ``precision`` must hold on images that calibration did not see."""
    match precision:
        case Precision.FP32:
            return GateTolerance(abs_rel=0.0, delta1=0.0, mean_rel=0.0, p99_rel=0.0)
        case Precision.FP16:
            # A lower float format must be a free choice: AbsRel to three digits, and no more pixels over a δ1 edge than
            # the 0.5 % that lie within 1e-3 of it.
            return GateTolerance(abs_rel=1e-3, delta1=2e-3, mean_rel=1e-3, p99_rel=1e-2)
        case Precision.BF16:
            return GateTolerance(abs_rel=1e-3, delta1=2e-3, mean_rel=4e-3, p99_rel=4e-2)
        case Precision.INT8:
            # 8-bit operands buy speed for accuracy: 1 % of AbsRel is below what two trainings of one model differ by.
            return GateTolerance(abs_rel=1e-2, delta1=1e-2, mean_rel=2e-2, p99_rel=1e-1)
        case Precision.FP8:
            # Coarser than int8 where a tensor is spread evenly over its range: twice its allowance.
            return GateTolerance(abs_rel=2e-2, delta1=2e-2, mean_rel=3e-2, p99_rel=1.5e-1)
