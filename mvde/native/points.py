"""Points of a depth map, and the rays of a camera's pixels."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import UsageError
from mvde.native import Workers, _check, _Handle, abi
from mvde.native.maps import address, enum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Rays(_Handle):
    """The ray of every pixel of a camera's frames; thread-safe.

    Bit-identical to :func:`mvde.runtime.rays.camera_rays`.
    """

    def __init__(
        self,
        intrinsics: tuple[float, float, float, float],
        size: tuple[int, int],
        model: str | None = None,
        coefficients: Sequence[float] = (),
    ) -> None:
        """``intrinsics`` are fx, fy, cx, cy in pixels of frames of ``size`` (H, W).

        ``model`` and ``coefficients`` are those of the lens's distortion, as in :class:`mvde.distortion.Distortion`.
        """
        self.size = size
        camera, lens = abi.CCamera(*intrinsics, *size), None
        if model is not None:
            values = (*coefficients, *[0.0] * (8 - len(coefficients)))
            lens = abi.CDistortion(enum(abi.DISTORTIONS, model, "model"), 0, (ctypes.c_double * 8)(*values))
        super().__init__("mvde_rays_create", "mvde_rays_destroy", camera, lens)

    def points(
        self,
        depth_m: NDArray[np.float32],
        out: NDArray[np.float32],
        *,
        step: int = 1,
        rgb: NDArray[np.uint8] | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Write the points of depth (H, W), float32, in metres to ``out``, float32 and contiguous.

        ``out`` is (ceil(H / step), ceil(W / step), 3), or 4 with ``rgb`` (H, W, 3), uint8, of dense rows.
        """
        values = 3 if rgb is None else 4
        shape = (-(-self.size[0] // step), -(-self.size[1] // step), values)
        rows, pixels = depth_m.strides if depth_m.ndim == 2 else (0, 0)
        is_dense = pixels == depth_m.itemsize and abs(rows) >= self.size[1] * pixels  # 0, of broadcast rows, is not
        if depth_m.shape != self.size or depth_m.dtype != np.float32 or not is_dense:
            raise UsageError(f"depth is {depth_m.dtype} {depth_m.shape}: expected float32 {self.size} with dense rows")
        if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise UsageError(f"out is {out.dtype} {out.shape}: expected contiguous float32 {shape}")
        options = abi.CPointsOptions(ctypes.sizeof(abi.CPointsOptions), step, None)
        if rgb is not None:
            frame = abi.CFrame(ctypes.sizeof(abi.CFrame), abi.PIXEL_FORMATS["rgb"], address(rgb), None)
            (frame.height, frame.width), frame.row_stride = rgb.shape[:2], rgb.strides[0]
            options.colours = ctypes.pointer(frame)
        handle, library = workers.handle if workers else None, self._library
        plane = (address(depth_m), depth_m.strides[0])
        _check(library, library.mvde_points(self.handle, *plane, options, address(out), out.size, handle))
