"""Calibration range methods; a separate, light module, because the command line lists them."""

from __future__ import annotations

from enum import Enum


class RangeMethod(str, Enum):
    """Method of deriving an activation's range from calibration data; ``auto`` takes the best by measurement."""

    AUTO = "auto"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"

    def __str__(self) -> str:
        return self.value

    @property
    def candidates(self) -> tuple[RangeMethod, ...]:
        """Methods to measure."""
        if self is RangeMethod.AUTO:
            return RangeMethod.MINMAX, RangeMethod.PERCENTILE, RangeMethod.ENTROPY
        return (self,)
