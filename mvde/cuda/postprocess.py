"""Depth and patch statistics on an NVIDIA GPU: arguments and launch plan of ``cpp/kernels/postprocess.cu``.

The kernel's structures are mirrored with ctypes; ``tests/kernels`` compares both sides.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvde.errors import UsageError
from mvde.resolution import check_resolution
from mvde.stats import DEFAULT_STATS, STATS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_COLUMNS = 8
_LARGEST_WARP_PATCH = 32
_CHUNK = (32, 128)
_MARGIN = 4
_LARGEST_GRID_YZ = 65535

# dtype of the raw values → (suffix of the kernel names, bytes per value)
RAW_DTYPES = {"float32": ("f32", 4), "float16": ("f16", 2), "bfloat16": ("bf16", 2)}


class Conversion(Enum):
    """Depth in metres from ``t = scale * raw + shift``."""

    LINEAR = 0  # t
    INVERSE = 1  # 1 / t of raw > 0, else invalid: inverse depth, disparity
    EXP = 2  # exp(t)
    LOG_SIGMOID = 3  # exp(ln min + sigmoid(t) * (ln max - ln min)): the metric head


class DepthRange(Enum):
    """Treatment of finite, positive depth outside the bounds: mark it invalid, or clamp it."""

    REJECT = 0
    CLAMP = 1


class DepthFormat(Enum):
    """Depth encodings of ROS REP 118: float32 metres, or uint16 millimetres with 0 for invalid."""

    METRES = 1
    MILLIMETRES = 2


class PostprocessParams(ctypes.Structure):
    """``PostprocessParams`` of ``cpp/kernels/postprocess_params.h``; strides count elements."""

    _fields_ = (
        ("raw", ctypes.c_void_p),
        ("depth", ctypes.c_void_p),
        ("stats", ctypes.c_void_p),
        ("raw_batch_stride", ctypes.c_longlong),
        ("raw_row_stride", ctypes.c_longlong),
        ("depth_batch_stride", ctypes.c_longlong),
        ("depth_row_stride", ctypes.c_longlong),
        ("batch", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("patch", ctypes.c_int),
        ("depth_output", ctypes.c_int),
        ("conversion", ctypes.c_int),
        ("range", ctypes.c_int),
        ("scale", ctypes.c_float),
        ("shift", ctypes.c_float),
        ("log_min", ctypes.c_float),
        ("log_span", ctypes.c_float),
        ("min_depth_m", ctypes.c_float),
        ("max_depth_m", ctypes.c_float),
        ("invalid_m", ctypes.c_float),
        ("columns", ctypes.c_uint),
        ("num_columns", ctypes.c_int),
    )


class DeviceMap(NamedTuple):
    """A batch of single-channel maps in device memory: address, and strides in elements (0: dense)."""

    address: int
    batch_stride: int = 0
    row_stride: int = 0


class LaunchPlan(NamedTuple):
    """Kernel and launch configuration: blocks along x, y, z; threads per block; dynamic shared memory in bytes."""

    kernel: str
    grid: tuple[int, int, int]
    block_threads: int
    shared_bytes: int


@dataclass(frozen=True)
class PostprocessOptions:
    """Conversion of raw values to depth; bounds in metres are inclusive. Mirrors ``mvde_postprocess_options``."""

    conversion: Conversion = Conversion.LINEAR
    scale: float = 1.0
    shift: float = 0.0
    range: DepthRange = DepthRange.REJECT
    min_depth_m: float = 0.0
    max_depth_m: float = math.inf
    invalid_m: float = math.nan

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.shift)):
            raise UsageError(f"scale {self.scale} and shift {self.shift} must be finite")
        if not 0.0 <= self.min_depth_m < self.max_depth_m:
            raise UsageError(
                f"min_depth_m {self.min_depth_m} and max_depth_m {self.max_depth_m}: "
                "expected 0 <= min_depth_m < max_depth_m"
            )
        bounded = self.min_depth_m > 0 and math.isfinite(self.max_depth_m)
        if self.conversion is Conversion.LOG_SIGMOID and not bounded:
            raise UsageError(
                f"the log-sigmoid head maps onto its bounds, which must be positive and finite, but got "
                f"min_depth_m {self.min_depth_m} and max_depth_m {self.max_depth_m}"
            )


def numpy_depth(raw: NDArray[np.float32], options: PostprocessOptions) -> NDArray[np.float64]:
    """Depth in metres of raw values, both of any shape, NaN where invalid: the kernel's specification."""
    t = options.scale * raw.astype(np.float64) + options.shift
    low, high = options.min_depth_m, options.max_depth_m
    with np.errstate(all="ignore"):
        match options.conversion:
            case Conversion.LINEAR:
                depth = t
            case Conversion.INVERSE:
                depth = np.where(raw > 0, 1 / t, np.nan)
            case Conversion.EXP:
                depth = np.exp(t)
            case Conversion.LOG_SIGMOID:
                depth = low * np.exp(np.log(high / low) / (1 + np.exp(-t)))
        valid = np.isfinite(depth) & (depth > 0)
        if options.range is DepthRange.CLAMP:
            depth = np.clip(depth, low, high)
        elif options.conversion is not Conversion.LOG_SIGMOID:
            valid &= (depth >= low) & (depth <= high)
    return np.where(valid, depth, np.nan)


def postprocess_params(
    raw: DeviceMap,
    shape: tuple[int, int, int],
    options: PostprocessOptions,
    *,
    depth: DeviceMap | None = None,
    depth_format: DepthFormat = DepthFormat.METRES,
    stats_address: int | None = None,
    patch_size: int = 1,
    stats: Sequence[str] = DEFAULT_STATS,
) -> PostprocessParams:
    """Build the kernel's arguments for maps of ``shape`` (B, H, W); ``depth`` and ``stats_address`` select the outputs.

    ``stats_address`` points to B x N x len(stats) floats. Raises :class:`UsageError` if no output is selected or an
    argument is out of range, :class:`ResolutionError` if patches do not tile the map.
    """
    batch, height, width = shape
    _check_shape(batch, height, width)
    if depth is None and stats_address is None:
        raise UsageError("neither depth nor statistics were requested; give depth, stats_address or both")
    params = PostprocessParams(batch=batch, height=height, width=width, patch=patch_size)
    params.raw, params.raw_batch_stride, params.raw_row_stride = _dense(raw, height, width)
    if depth is not None:
        params.depth, params.depth_batch_stride, params.depth_row_stride = _dense(depth, height, width)
        params.depth_output = depth_format.value
    if stats_address is not None:
        check_resolution((height, width), _checked_patch_size(patch_size))
        params.stats = stats_address
        params.columns, params.num_columns = _packed_columns(stats), len(stats)
    _set_options(params, options)
    return params


def plan_postprocess(params: PostprocessParams, raw_dtype: str) -> LaunchPlan:
    """Plan the launch for ``params`` and raw values of ``raw_dtype``: float32, float16 or bfloat16.

    Mirrors ``plan_postprocess`` and ``plan_convert_depth`` of ``postprocess_params.h``.
    """
    if raw_dtype not in RAW_DTYPES:
        raise UsageError(f"raw values of {raw_dtype!r} are not supported; they are one of {', '.join(RAW_DTYPES)}")
    suffix = RAW_DTYPES[raw_dtype][0]
    images = params.batch
    if params.num_columns == 0:
        vectors = -(-params.width // 8)
        return LaunchPlan(f"mvde_convert_depth_{suffix}", (-(-vectors // 128), params.height, images), 128, 0)
    patch = params.patch
    rows, columns = params.height // patch, params.width // patch
    if patch > _LARGEST_WARP_PATCH:
        shared_bytes = 4 * ((min(patch, _CHUNK[0]) + 2) * _tile_pitch(min(patch, _CHUNK[1])) + 32)
        return LaunchPlan(f"mvde_postprocess_patch_per_block_{suffix}", (columns, rows, images), 256, shared_bytes)
    wide = 8 if patch <= 16 else 4
    shared_bytes = 4 * (patch + 2) * _tile_pitch(wide * patch)
    grid = (-(-columns // wide), rows, images)
    return LaunchPlan(f"mvde_postprocess_patch_per_warp_{suffix}", grid, 32 * wide, shared_bytes)


def _tile_pitch(width: int) -> int:
    return (width + 2 * _MARGIN + 15) // 32 * 32 + 16


def _check_shape(batch: int, height: int, width: int) -> None:
    most = {"batch": (batch, _LARGEST_GRID_YZ), "height": (height, _LARGEST_GRID_YZ), "width": (width, 2**31 - 1024)}
    for name, (size, largest) in most.items():
        if not 0 < size <= largest:
            raise UsageError(f"{name} is {size}; expected 1 to {largest}")


def _dense(target: DeviceMap, height: int, width: int) -> tuple[int, int, int]:
    """Address and strides with defaults filled in; rows and images must not overlap."""
    row_stride = target.row_stride or width
    batch_stride = target.batch_stride or height * row_stride
    if row_stride < width or batch_stride < (height - 1) * row_stride + width:
        raise UsageError(
            f"strides of {batch_stride} and {row_stride} elements (batch, row) make rows of {height}x{width} overlap"
        )
    if target.address == 0:
        raise UsageError("a device address is 0; give the address of allocated device memory")
    return target.address, batch_stride, row_stride


def _checked_patch_size(patch_size: int) -> int:
    if patch_size < 1:
        raise UsageError(f"patch_size is {patch_size}; expected a positive number of pixels, such as 14 or 16")
    return patch_size


def _packed_columns(stats: Sequence[str]) -> int:
    if isinstance(stats, str) or not 0 < len(stats) <= _MOST_COLUMNS or any(name not in STATS for name in stats):
        raise UsageError(f"stats is {stats!r}; expected 1 to {_MOST_COLUMNS} names out of {', '.join(STATS)}")
    return sum(STATS.index(name) << (4 * column) for column, name in enumerate(stats))


def _set_options(params: PostprocessParams, options: PostprocessOptions) -> None:
    params.conversion, params.range = options.conversion.value, options.range.value
    params.scale, params.shift, params.invalid_m = options.scale, options.shift, options.invalid_m
    params.min_depth_m, params.max_depth_m = options.min_depth_m, options.max_depth_m
    if options.conversion is Conversion.LOG_SIGMOID:
        params.log_min = math.log(options.min_depth_m)
        params.log_span = math.log(options.max_depth_m / options.min_depth_m)
