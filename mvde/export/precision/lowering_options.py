"""What a caller may choose when a graph is lowered: the images that decide, and the images that judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvde.errors import UsageError
from mvde.export.progress import Progress, no_progress
from mvde.export.range_method import RangeMethod
from mvde.precision import LOWERED, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESTS = (Precision.FP32, Precision.FP16)
"""What the nodes of an int8 or fp8 graph that are not quantised may compute in."""


@dataclass(frozen=True)
class HeldOut:
    """Images that judge a typed graph: (K, H, W, 3) uint8 RGB at the graph's resolution.

    ``depth_m`` (K, H, W), metres, 0 or NaN where unknown, is their ground truth; without it the fp32 graph's depth
    stands in for it. ``name`` says where they came from.
    """

    images: NDArray[np.uint8]
    name: str
    depth_m: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class LowerOptions:
    """``calibration`` (K, H, W, 3) uint8 RGB at the graph's resolution; ``None`` means crops of photographs that ship.

    ``held_out`` are the images of the gate, by default crops of other photographs. ``rest`` is what the nodes of an
    int8 or fp8 graph that are not quantised compute in, one of :data:`RESTS`: fp32 suits the CPU backends, fp16
    TensorRT. ``progress`` is told what is being measured. Raises :class:`UsageError` for another ``rest`` or method.
    """

    calibration: NDArray[np.uint8] | None = None
    held_out: tuple[HeldOut, ...] = ()
    method: RangeMethod = RangeMethod.AUTO
    rest: Precision = Precision.FP32
    patch_size: int = 16
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        if not isinstance(self.method, RangeMethod):
            raise UsageError(f"calibration method {self.method!r} is unknown; use {', '.join(RangeMethod)}")
        if not isinstance(self.rest, Precision) or self.rest not in RESTS:
            raise UsageError(f"the rest of a quantised graph cannot be {self.rest}; use {' or '.join(RESTS)}")


def check_lowered(precision: Precision) -> None:
    """Raise :class:`UsageError` where a graph in ``precision`` is the fp32 graph itself."""
    if not precision.is_lowered:
        raise UsageError(f"cannot write a {precision} graph; expected one of {', '.join(LOWERED)}")
