"""Binding to libmvde's scans: distances by bearing of depth maps, bit-identical to :mod:`mvde.runtime.scan`."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvde.errors import UsageError
from mvde.native import _check, _Handle, abi
from mvde.native.maps import address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mvde.native.points import Rays


class ScannerInfo(NamedTuple):
    """Constant properties of a scanner's scans, as ``mvde_scan_info`` has them."""

    angle_min: float
    angle_increment: float
    support: int
    rotation: tuple[float, float, float, float]
    reach_m: NDArray[np.float32]


class Scanner(_Handle):
    """Table and histogram for depth maps of one camera and mounting; not thread-safe."""

    def __init__(
        self,
        rays: Rays,
        box: tuple[int, int, int, int],
        settings: Sequence[float],
    ) -> None:
        """``rays`` are those of the maps' camera; ``box`` (top, left, bottom, right) of the maps shows the frame.

        ``settings`` are those of :class:`mvde.runtime.scan_settings.ScanSettings`
        in its order, with the lowest height resolved. Raises :class:`UsageError` as
        :func:`mvde.runtime.scan_table.scan_table` does.
        """
        self.size = rays.size
        inside = abi.CBox(*box)
        chosen = abi.CScanSettings(ctypes.sizeof(abi.CScanSettings), *settings)
        super().__init__("mvde_scanner_create", "mvde_scanner_destroy", rays.handle, inside, chosen)
        self.info = self._query()

    def scan(self, depth_m: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Distances (bearings,), float32, of a depth map (H, W), float32 metres, in ``out`` (contiguous) if given."""
        if depth_m.shape != self.size or depth_m.dtype != np.float32:
            raise UsageError(f"depth is {depth_m.dtype} {depth_m.shape}: expected float32 {self.size}")
        shape = self.info.reach_m.shape
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise UsageError(f"out is {out.dtype} {out.shape}: expected contiguous float32 {shape}")
        is_dense = depth_m.strides[1] == depth_m.itemsize and abs(depth_m.strides[0]) >= depth_m.shape[1] * 4
        source = depth_m if is_dense and depth_m.flags.aligned else depth_m.copy()
        planes = (address(source), source.strides[0], address(out), out.size)
        _check(self._library, self._library.mvde_scan(self.handle, *planes))
        return out

    def _query(self) -> ScannerInfo:
        info = abi.CScanInfo(ctypes.sizeof(abi.CScanInfo))
        _check(self._library, self._library.mvde_scanner_query(self.handle, info))
        reach = np.ctypeslib.as_array(info.reach_m, (info.num_bearings,)).copy()
        x, y, z, w = info.rotation
        return ScannerInfo(info.angle_min, info.angle_increment, info.support, (x, y, z, w), reach)
