"""Choices of the command line that are a part of a type's; a test holds each to the rest of it.

Where every value of a type can be chosen (``Fit``, ``RangeMethod``, ``DataFormat``, ``Alignment``, ``Split``), the
verbs take the type itself: typer lists it in ``--help``, and its module loads nothing.
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
        """The precision of that name."""
        return Precision(self.value)


class Rest(str, Enum):
    """What the nodes that an int8 or fp8 graph does not quantise compute in: the precisions that are floats."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    def __str__(self) -> str:
        return self.value

    @property
    def precision(self) -> Precision:
        """The precision of that name."""
        return Precision(self.value)
