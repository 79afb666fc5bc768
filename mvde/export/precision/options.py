"""What a caller may choose when a graph is lowered: the images that decide, and the images that judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHODS = ("minmax", "percentile", "entropy")
"""Ways to take a tensor's range from what calibration saw of it; ``"auto"`` takes the one that measures best."""


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
    """``calibration`` (K, H, W, 3) uint8 RGB at the graph's resolution; ``None`` means the photographs that ship.

    ``held_out`` are the images of the gate, by default crops of the photographs that calibration does not see;
    ``method`` is one of :data:`METHODS` or ``"auto"``.
    """

    calibration: NDArray[np.uint8] | None = None
    held_out: tuple[HeldOut, ...] = field(default_factory=tuple)
    method: str = "auto"
    patch_size: int = 16
