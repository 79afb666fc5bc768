"""What a caller may choose when a graph is lowered: the images that decide, and the images that judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHODS = ("minmax", "percentile", "entropy")
"""Ways to take an activation's range from what calibration saw of it; ``"auto"`` takes the one that measures best."""

RESTS = ("fp32", "fp16")
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

    ``held_out`` are the images of the gate, by default crops of other photographs. ``method`` is one of
    :data:`METHODS` or ``"auto"``. ``rest`` is one of :data:`RESTS`: fp32 suits the CPU backends, fp16 TensorRT.
    ``progress`` is told what is being measured.
    """

    calibration: NDArray[np.uint8] | None = None
    held_out: tuple[HeldOut, ...] = ()
    method: str = "auto"
    rest: str = "fp32"
    patch_size: int = 16
    progress: Callable[[str], None] = lambda message: None
