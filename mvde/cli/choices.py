"""What ``--to`` and ``--rest`` accept: parts of :class:`~mvde.precision.Precision`, listed by ``--help``."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    """A word of the command line; it equals its text."""

    def __str__(self) -> str:
        return str(self.value)


class LoweredTo(_Word):
    """Precisions that a graph can be lowered to (:data:`mvde.precision.LOWERED`)."""

    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class Rest(_Word):
    """What the nodes that an int8 or fp8 graph does not quantise compute in: the floats of :class:`Precision`."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
