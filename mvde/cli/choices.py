"""Command-line choices that are a subset of an enum; a test keeps them in sync.

Verbs use the enum itself where all values are allowed (``Fit``, ``RangeMethod``, ``DataFormat``, ``Alignment``,
``Split``): typer lists the values in ``--help``, and importing its module is cheap.
"""

from __future__ import annotations

from enum import Enum

from mvde.precision import Precision


class LoweredTo(str, Enum):
    """Precisions that a graph can be lowered to (:data:`mvde.precision.LOWERED`)."""

    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    def __str__(self) -> str:
        return self.value

    @property
    def precision(self) -> Precision:
        """The corresponding precision."""
        return Precision(self.value)


class AttentionSums(str, Enum):
    """Precisions that the attentions of an fp16 graph may sum in."""

    FP16 = "fp16"
    FP32 = "fp32"

    def __str__(self) -> str:
        return self.value

    @property
    def precision(self) -> Precision:
        """The corresponding precision."""
        return Precision(self.value)


class Rest(str, Enum):
    """Compute types of unquantised nodes in an int8 or fp8 graph: the floating-point precisions."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    def __str__(self) -> str:
        return self.value

    @property
    def precision(self) -> Precision:
        """The corresponding precision."""
        return Precision(self.value)
