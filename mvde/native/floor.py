"""Binding to libmvde's scale from the floor, bit-identical to :mod:`mvde.runtime.floor`."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvde.errors import UsageError
from mvde.native import _check, _require, abi
from mvde.native.maps import address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mvde.native.points import Rays

_STATUS = {number: name for name, number in abi.FLOORS.items()}


class Floor(NamedTuple):
    """What the floor gives a map, as ``mvde_floor`` has it; ``status`` is the name of one."""

    status: str
    scale: float
    share: float
    residual: float


def floor_scale(
    rays: Rays, box: tuple[int, int, int, int], mounting: Sequence[float], depth_m: NDArray[np.float32]
) -> Floor:
    """Scale of a depth map (H, W), float32 metres, of which ``box`` (top, left, bottom, right) shows the frame.

    ``rays`` are those of the map's camera; ``mounting`` is its height in metres, pitch and roll in degrees. Raises
    :class:`UsageError` for a map of another size and for numbers that are no mounting.
    """
    if depth_m.shape != rays.size or depth_m.dtype != np.float32:
        raise UsageError(f"depth is {depth_m.dtype} {depth_m.shape}: expected float32 {rays.size}")
    library, source = _require(), np.ascontiguousarray(depth_m)
    chosen, found = abi.CMounting(ctypes.sizeof(abi.CMounting), *mounting), abi.CFloor(ctypes.sizeof(abi.CFloor))
    _check(library, library.mvde_floor_scale(rays.handle, abi.CBox(*box), chosen, address(source), 0, found))
    return Floor(_STATUS[found.status], found.scale, found.share, found.residual)
