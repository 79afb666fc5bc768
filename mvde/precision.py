"""The precisions that graphs and engines compute in, and what one asks of them.

A table over precisions is a ``match`` without a default: a precision that is added later makes mypy name every place
where a decision is due.
"""

from __future__ import annotations

from enum import Enum

from mvde.errors import UsageError


class Precision(str, Enum):
    """Arithmetic of a graph's or an engine's products; its text is the one in engine ids, manifests and options."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Precision of that name. Raises :class:`UsageError` listing the names there are."""
        try:
            return cls(text.strip().lower())
        except ValueError as error:
            raise UsageError(f"precision {text!r} is not known; expected one of {', '.join(cls)}") from error

    @property
    def is_quantized(self) -> bool:
        """Whether operands are stored in 8 bits with scales, by Q/DQ nodes in the graph."""
        match self:
            case Precision.INT8 | Precision.FP8:
                return True
            case Precision.FP32 | Precision.FP16 | Precision.BF16:
                return False

    @property
    def is_lowered(self) -> bool:
        """Whether a graph in this precision is another file than the fp32 graph."""
        return self is not Precision.FP32

    @property
    def significand_bits(self) -> int:
        """Bits of the significand, the leading one included; of int8, those of a magnitude."""
        match self:
            case Precision.FP32:
                return 24
            case Precision.FP16:
                return 11
            case Precision.BF16:
                return 8
            case Precision.INT8:
                return 7
            case Precision.FP8:
                return 4

    @property
    def largest(self) -> float:
        """Largest finite magnitude that it can hold, in steps of 1 for int8 (−128 is left out: it is symmetric)."""
        match self:
            case Precision.FP32:
                return 3.4028234663852886e38
            case Precision.FP16:
                return 65504.0
            case Precision.BF16:
                return 3.3895313892515355e38
            case Precision.INT8:
                return 127.0
            case Precision.FP8:  # E4M3
                return 448.0


LOWERED = tuple(precision for precision in Precision if precision.is_lowered)
