"""Caller's options for lowering a graph: calibration images, held-out images, range method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.export.progress import Progress, no_progress
from mvde.export.range_method import RangeMethod
from mvde.precision import LOWERED, Precision
from mvde.resampling import DEFAULT_RESAMPLING, Resampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ATTENTIONS = (Precision.FP16, Precision.FP32)
"""Precisions that the attentions of an fp16 graph may sum in."""

RESTS = (Precision.FP32, Precision.FP16)
"""Precisions allowed for the non-quantised nodes of an int8 or fp8 graph."""

WEIGHT_BITS = (7, 8)
"""Bits allowed for the weights of an int8 graph."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out images for validating a typed graph: (K, H, W, 3) uint8 RGB at the graph's resolution.

    ``depth_m`` (K, H, W) is their ground truth in metres, 0 or NaN where unknown; without it the fp32 graph's depth is
    the reference. ``name`` describes their origin.
    """

    images: NDArray[np.uint8]
    name: str
    depth_m: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class LowerOptions:
    """``calibration`` is (K, H, W, 3) uint8 RGB at the graph's resolution; default: crops of bundled photographs.

    With ``attention`` fp32, attentions of an fp16 graph take fp32 operands, which TensorRT from 11.3 fuses into an fp16
    attention that sums in fp32.

    ``held_out`` are the validation images; default: crops of other photographs. ``rest`` is the precision of the
    non-quantised nodes of an int8 or fp8 graph, one of :data:`RESTS`: fp32 suits the CPU backends, fp16 TensorRT.
    ``weight_bits`` is 8, or 7 for int8 weights whose products saturate on no CPU.
    ``patch_size`` and ``depth_kind`` are those of the manifest, ``resampling`` is that of default images. ``progress``
    receives a message per measurement. Raises
    :class:`UsageError` for another ``rest``, method or number of bits.
    """

    calibration: NDArray[np.uint8] | None = None
    held_out: tuple[HeldOut, ...] = ()
    method: RangeMethod = RangeMethod.AUTO
    rest: Precision = Precision.FP32
    patch_size: int = 16
    depth_kind: DepthKind = DepthKind.METRIC
    attention: Precision = Precision.FP16
    progress: Progress = no_progress
    resampling: Resampling = DEFAULT_RESAMPLING
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.method, RangeMethod):
            raise UsageError(f"calibration method {self.method!r} is unknown; use {', '.join(RangeMethod)}")
        if self.weight_bits not in WEIGHT_BITS:
            bits = " or ".join(str(count) for count in WEIGHT_BITS)
            raise UsageError(f"weights of an int8 graph cannot have {self.weight_bits} bits; use {bits}")
        if not isinstance(self.rest, Precision) or self.rest not in RESTS:
            raise UsageError(f"the rest of a quantised graph cannot be {self.rest}; use {' or '.join(RESTS)}")
        if self.attention not in ATTENTIONS:
            raise UsageError(f"attention cannot sum in {self.attention}; use {' or '.join(ATTENTIONS)}")


def check_lowered(precision: Precision) -> None:
    """Raise :class:`UsageError` if ``precision`` is that of the fp32 graph itself."""
    if not precision.is_lowered:
        raise UsageError(f"cannot write a {precision} graph; expected one of {', '.join(LOWERED)}")
