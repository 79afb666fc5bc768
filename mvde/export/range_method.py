"""Ways to take the range of an activation; a module of its own, because the command line lists them."""

from __future__ import annotations

from enum import Enum


class RangeMethod(str, Enum):
    """How an activation's range is taken from what calibration saw of it; ``auto`` takes what measures best."""

    AUTO = "auto"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"

    def __str__(self) -> str:
        return self.value

    @property
    def candidates(self) -> tuple[RangeMethod, ...]:
        """The methods that are measured."""
        if self is RangeMethod.AUTO:
            return RangeMethod.MINMAX, RangeMethod.PERCENTILE, RangeMethod.ENTROPY
        return (self,)
