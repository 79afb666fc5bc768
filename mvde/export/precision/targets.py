"""What a typed graph is aimed at while it is decided, and what it must hold to be written, with the reasons."""

from __future__ import annotations

from dataclasses import dataclass

from mvde.records import GateTolerance


@dataclass(frozen=True)
class Target:
    """Relative depth error on the calibration images, mean and 99th percentile over pixels, at which deciding ends."""

    mean_rel: float
    p99_rel: float


TARGETS = {
    # One rounding to 11 bits is 2.4e-4 on average; a graph whose tail stays in fp32 reaches about that.
    "fp16": Target(mean_rel=5e-4, p99_rel=5e-3),
    # One rounding to 8 bits is 2e-3 on average, so that no tensor next to the output may be bf16. At 1.5e-3 AbsRel of
    # the shipped model moved by 1.3e-3 of itself, because the patch embedding's rounding has a bias; 1e-3 keeps it.
    "bf16": Target(mean_rel=1e-3, p99_rel=1e-2),
    # Rounding the products' operands to 8 bits leaves about 1 % in depth where no range was cut short; a percentile
    # far above the mean is the sign of ranges that were.
    "int8": Target(mean_rel=1e-2, p99_rel=5e-2),
    # Three bits after the leading one: 1.8 % per operand on average, over sums of hundreds.
    "fp8": Target(mean_rel=1.5e-2, p99_rel=6e-2),
}

NEGLIGIBLE = 0.1
"""Share of the target below which a group is not worth keeping: it would cost casts and change nothing."""


GATE = {
    # A lower float format must be a free choice: AbsRel to three digits, and no more pixels over a δ1 edge than the
    # 0.5 % that lie within 1e-3 of it.
    "fp16": GateTolerance(abs_rel=1e-3, delta1=2e-3, mean_rel=1e-3, p99_rel=1e-2),
    "bf16": GateTolerance(abs_rel=1e-3, delta1=2e-3, mean_rel=4e-3, p99_rel=4e-2),
    # 8-bit operands buy speed for accuracy: 1 % of AbsRel is below what two trainings of one model differ by.
    "int8": GateTolerance(abs_rel=1e-2, delta1=1e-2, mean_rel=2e-2, p99_rel=1e-1),
    # Coarser than int8 where a tensor is spread evenly over its range: twice its allowance.
    "fp8": GateTolerance(abs_rel=2e-2, delta1=2e-2, mean_rel=3e-2, p99_rel=1.5e-1),
}
