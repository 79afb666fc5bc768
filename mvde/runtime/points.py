"""Points of a depth map: each pixel's ray, times its depth.

The specification in NumPy, and libmvde's kernel with the same bits where it is installed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mvde import native
from mvde.errors import UsageError
from mvde.runtime.rays import camera_rays
from mvde.stats import LARGEST_DEPTH_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.native.points import Rays

_MAX_STEP = 1 << 16
_NUM_CAMERAS = 4
"""Whose rays are kept: those of a distorted lens take 8 bytes a pixel."""


def depth_points(
    depth_m: NDArray[np.float32],
    camera: Camera,
    step: int = 1,
    rgb: NDArray[np.uint8] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Points of a depth map (H, W) in metres of the camera's frames, as :meth:`mvde.DepthResult.points` gives them.

    Raises :class:`UsageError` for a camera, ``rgb`` or ``out`` of another size, and a ``step`` below 1.
    """
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 1 <= step <= _MAX_STEP:
        raise UsageError(f"step is {step!r}: expected 1 (every pixel) to {_MAX_STEP}")
    height, width = depth_m.shape
    camera.check_frame((height, width))
    if rgb is not None and (rgb.shape != (height, width, 3) or rgb.dtype != np.uint8):
        raise UsageError(f"rgb is {rgb.dtype} {rgb.shape}: expected uint8 {(height, width, 3)}, the frame of the depth")
    shape = (-(-height // step), -(-width // step), 3 if rgb is None else 4)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise UsageError(f"out is {out.dtype} {out.shape}: expected contiguous float32 {shape}")
    if native.is_available():
        has_rows = depth_m.strides[1] == depth_m.itemsize and abs(depth_m.strides[0]) >= width * depth_m.itemsize
        dense = depth_m if has_rows and depth_m.flags.aligned else depth_m.copy()
        frame = None if rgb is None else np.ascontiguousarray(rgb)
        native_rays(camera).points(dense, out, step=int(step), rgb=frame)
    else:
        write_points(depth_m, *numpy_rays(camera), step, rgb, out)
    return out


def write_points(
    depth_m: NDArray[np.float32],
    ray_x: NDArray[np.float32],
    ray_y: NDArray[np.float32],
    step: int,
    rgb: NDArray[np.uint8] | None,
    out: NDArray[np.float32],
) -> None:
    """Write points to ``out`` (h, w, 3 or 4): the specification of ``mvde_points``."""
    z = depth_m[::step, ::step]
    x, y = (np.broadcast_to(ray, depth_m.shape)[::step, ::step] for ray in (ray_x, ray_y))
    with np.errstate(invalid="ignore"):
        valid = (z > 0) & (z <= LARGEST_DEPTH_M) & ~np.isnan(x)
    nan = np.float32(math.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        out[..., 0] = np.where(valid, z * x, nan)
        out[..., 1] = np.where(valid, z * y, nan)
    out[..., 2] = np.where(valid, z, nan)
    if rgb is not None:
        out.view(np.uint32)[..., 3] = packed_colours(rgb[::step, ::step])


def packed_colours(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colours (..., 3) as 0x00RRGGBB, whose bits are the field ``rgb`` of a point cloud."""
    red, green, blue = (rgb[..., channel].astype(np.uint32) for channel in range(3))
    return red << np.uint32(16) | green << np.uint32(8) | blue


@lru_cache(maxsize=_NUM_CAMERAS)
def numpy_rays(camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rays of a camera, of shapes (1, W) and (H, 1) or both (H, W), kept for the next call."""
    return camera_rays(camera)


@lru_cache(maxsize=_NUM_CAMERAS)
def native_rays(camera: Camera) -> Rays:
    """Rays of a camera in libmvde, kept for the next call."""
    from mvde.native.points import Rays

    lens, intrinsics = camera.distortion, (camera.fx, camera.fy, camera.cx, camera.cy)
    if lens is None:
        return Rays(intrinsics, camera.size)
    return Rays(intrinsics, camera.size, str(lens.model), lens.coefficients)
