"""Precisions that graphs and engines compute in, and their properties.

Properties are exhaustive ``match`` statements without a default, so that mypy reports each one when a precision is
added.
"""

from __future__ import annotations

from enum import Enum

from mvde.errors import UsageError


class Precision(str, Enum):
    """Arithmetic of a graph's or engine's products; the value is used in engine ids, manifests and options."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"

    def __str__(self) -> str:
        return self.value

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Parse a precision by name; raises :class:`UsageError` listing the known names."""
        try:
            return cls(text.strip().lower())
        except ValueError as error:
            raise UsageError(f"precision {text!r} is not known; expected one of {', '.join(cls)}") from error

    @property
    def is_quantized(self) -> bool:
        """Whether operands are 8-bit with scales, through Q/DQ nodes in the graph."""
        match self:
            case Precision.INT8 | Precision.FP8:
                return True
            case Precision.FP32 | Precision.FP16 | Precision.BF16:
                return False

    @property
    def is_lowered(self) -> bool:
        """Whether a graph in this precision is a separate file from the fp32 graph."""
        return self is not Precision.FP32

    @property
    def significand_bits(self) -> int:
        """Bits of the significand including the leading one; for int8, bits of the magnitude."""
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
        """Largest finite magnitude; for int8 in units of the scale, without −128 (symmetric quantization)."""
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
