"""Bindings to libmvde's fused post-processing kernel, through its public C interface (``mvde.h``).

The library is ``lib/libmvde.so`` in the package; the environment variable ``MVDE_LIBRARY`` overrides it. Without one (a
platform without a wheel) :func:`is_available` is False and callers use NumPy. A library that exists but cannot be used
is an error, never a silent fallback. ``MVDE_KERNEL`` forces an implementation (scalar, avx2, avx512, neon);
:func:`last_kernel` reports which one ran.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import mvde
from mvde.errors import BackendError, UsageError
from mvde.native import abi
from mvde.native.maps import address, companion, enum, map_of, name_of, readable
from mvde.resampling import DEFAULT_RESAMPLING, Resampling

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self


class Postprocessed(NamedTuple):
    """Depth (B, H, W) in metres (float32) or millimetres (uint16), and patch statistics (B, N, S) float32."""

    depth: NDArray[Any]
    stats: NDArray[np.float32]


def library_folders() -> list[Path]:
    """Folders to search for libmvde and its backends, in order: that of ``MVDE_LIBRARY``, or those of the package."""
    if forced := os.environ.get("MVDE_LIBRARY"):
        return [Path(forced).parent]
    # An editable install has two folders: the install prefix of its last build, and the source tree, where `make`
    # renews the library.
    return [Path(folder) / "lib" for folder in reversed(mvde.__path__)]


def library_path() -> Path | None:
    """Path of the library to use, or None."""
    if forced := os.environ.get("MVDE_LIBRARY"):
        return Path(forced)
    candidates = (folder / "libmvde.so" for folder in library_folders())
    return next((path for path in candidates if path.is_file()), None)


def cmake_dir() -> Path | None:
    """Folder for CMake's ``mvde_DIR``, used by ``find_package(mvde)``, or None."""
    candidates = (Path(folder) / "lib" / "cmake" / "mvde" for folder in mvde.__path__)
    return next((path for path in candidates if (path / "mvdeConfig.cmake").is_file()), None)


def is_available() -> bool:
    """Whether libmvde is installed. Raises :class:`BackendError` if it exists but cannot be used."""
    return _library() is not None


def version() -> str | None:
    """Version of the library, such as ``"0.1.0"``, or None without one."""
    library = _library()
    return None if library is None else _dotted(library.mvde_version())


def kernel() -> str | None:
    """Name of the selected implementation: scalar, avx2, avx512 or neon; None without the library."""
    library = _library()
    if library is None:
        return None
    name = library.mvde_kernel()
    if name is None:
        raise BackendError(f"MVDE_KERNEL={os.environ.get('MVDE_KERNEL')}: {_last_error(library)}")
    return str(name.decode())


def last_kernel() -> str:
    """Name of the implementation that executed this thread's last call; ``""`` before the first."""
    name: bytes = _require().mvde_last_kernel()
    return name.decode()


def available_kernels() -> list[str]:
    """Names of the built-in implementations supported by this CPU."""
    library = _require()
    return [name for name in ("avx512", "avx2", "neon", "scalar") if library.mvde_kernel_is_available(name.encode())]


def set_kernel(name: str | None) -> None:
    """Force an implementation for the whole process; None restores the default by CPU and ``MVDE_KERNEL``."""
    library = _require()
    _check(library, library.mvde_set_kernel(None if name is None else name.encode()))


class _Handle:
    """An opaque library handle, destroyed by :meth:`close`, at the end of a ``with`` block, or by the finaliser."""

    def __init__(self, create: str, destroy: str, *arguments: int | ctypes.c_void_p | ctypes.Structure | None) -> None:
        self._library = _require()
        handle = ctypes.c_void_p()
        _check(self._library, getattr(self._library, create)(*arguments, ctypes.byref(handle)))
        self._handle = handle
        self._destroy = weakref.finalize(self, getattr(self._library, destroy), handle)

    @property
    def handle(self) -> ctypes.c_void_p:
        """The C pointer. Raises :class:`UsageError` once closed."""
        if not self._destroy.alive:
            raise UsageError(f"this {type(self).__name__} is closed: create a new one")
        return self._handle

    def close(self) -> None:
        """Stop threads and free buffers. Idempotent."""
        self._destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Workers(_Handle):
    """Thread pool that helps the caller with one call at a time; results do not depend on the number of threads."""

    def __init__(self, num_threads: int) -> None:
        """``num_threads`` (1 to 256) includes the calling thread."""
        super().__init__("mvde_workers_create", "mvde_workers_destroy", num_threads)


class Resizer(_Handle):
    """Resizes frames of one format and size to one resolution, and depth back; not thread-safe.

    Bit-identical to :mod:`mvde.resampling`, and so to Pillow applied along x, then along y. Sizes are (height, width).
    """

    def __init__(
        self,
        source_size: tuple[int, int],
        target_size: tuple[int, int],
        fit: str = "stretch",
        pixel_format: str = "rgb",
        resampling: Resampling = DEFAULT_RESAMPLING,
        *,
        matrix: str = "bt601",
        full_range: bool = False,
    ) -> None:
        """``pixel_format`` is one of rgb, bgr, grey, nv12 and yuyv.

        ``matrix`` (bt601 or bt709) and ``full_range`` are of nv12 and yuyv: luma 16 to 235 and chroma 16 to 240, or 0
        to 255.
        """
        self.source_size, self.target_size = source_size, target_size
        self._format = enum(abi.PIXEL_FORMATS, pixel_format, "pixel_format")
        self._matrix, self._full_range = enum(abi.MATRICES, matrix, "matrix"), int(full_range)
        options = abi.CResizerOptions(
            ctypes.sizeof(abi.CResizerOptions),
            enum(abi.FITS, fit, "fit"),
            enum(abi.INTERPOLATIONS, resampling.interpolation, "interpolation"),
            resampling.bicubic_coefficient or 0.0,
            resampling.antialias,
            resampling.align_corners,
            resampling.multiple,
            resampling.padding,
        )
        sizes = (self._format, *source_size, *target_size)
        super().__init__("mvde_resizer_create", "mvde_resizer_destroy", *sizes, options)

    def resize(
        self, frame: NDArray[np.uint8], *, out: NDArray[np.uint8] | None = None, workers: Workers | None = None
    ) -> NDArray[np.uint8]:
        """Resize to an RGB image (H, W, 3) uint8 of the target size, in ``out`` (contiguous) if given.

        ``frame`` is uint8: (H, W, 3) for rgb and bgr, (H, W) for grey, (H * 3 // 2, W) for nv12, (H, W, 2) for yuyv.
        Rows may be strided; pixels within a row are dense.
        """
        height, width = self.source_size
        shape = [(height, width, 3), (height, width, 3), (height, width), (height * 3 // 2, width), (height, width, 2)]
        if frame.shape != shape[self._format] or frame.dtype != np.uint8:
            raise UsageError(f"the frame is {frame.dtype} {frame.shape}: expected uint8 {shape[self._format]}")
        dense = frame.strides[1:] == frame[:1].copy().strides[1:] and abs(frame.strides[0]) >= width
        source = frame if dense else frame.copy()
        size = ctypes.sizeof(abi.CFrame)
        view = abi.CFrame(size, self._format, address(source), None, height, width, source.strides[0], 0)
        view.matrix, view.full_range = self._matrix, self._full_range
        shape_out = (*self.target_size, 3)
        if out is None:
            out = np.empty(shape_out, np.uint8)
        elif out.shape != shape_out or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise UsageError(f"out is {out.dtype} {out.shape}: expected contiguous uint8 {shape_out}")
        handle = workers.handle if workers else None
        _check(self._library, self._library.mvde_resize(self.handle, view, address(out), 0, handle))
        return out

    def depth_to_source(
        self, depth_m: NDArray[np.float32], *, invalid_m: float = float("nan"), workers: Workers | None = None
    ) -> NDArray[np.float32]:
        """Return depth (H, W) float32 in metres at the frame's resolution; ``invalid_m`` outside the model's view.

        Bilinear over the neighbours that have depth, bit-identical to :func:`mvde.resampling.resample_depth`.
        """
        if depth_m.shape != self.target_size or depth_m.dtype != np.float32:
            raise UsageError(f"depth is {depth_m.dtype} {depth_m.shape}: expected float32 {self.target_size}")
        source = np.ascontiguousarray(depth_m)
        out = np.empty(self.source_size, np.float32)
        handle = workers.handle if workers else None
        planes = (address(source), 0, address(out), 0)
        _check(self._library, self._library.mvde_depth_to_source(self.handle, *planes, invalid_m, handle))
        return out


def patch_stats(
    depth_m: NDArray[Any],
    patch_size: int,
    stats: Sequence[str],
    *,
    min_depth: float = 0.0,
    max_depth: float = float("inf"),
    workers: Workers | None = None,
) -> NDArray[np.float32]:
    """Compute the statistics of each patch, float32 (B, N, S), as specified in :mod:`mvde.stats`.

    ``depth_m`` is float16 or float32 (B, H, W) in metres, with any strides. H and W must be multiples of
    ``patch_size``.
    """
    library = _require()
    source = readable(depth_m)
    request, out = _stats_request(source.shape, patch_size, stats)
    if source.shape[0]:
        handle = workers.handle if workers else None
        map_in = map_of(source, name_of(source.dtype))
        _check(library, library.mvde_patch_stats(map_in, min_depth, max_depth, request, handle))
    return out


def postprocess(
    raw: NDArray[Any],
    patch_size: int,
    stats: Sequence[str],
    *,
    conversion: str = "linear",
    scale: float = 1.0,
    shift: float = 0.0,
    depth_range: str = "reject",
    min_depth: float = 0.0,
    max_depth: float = float("inf"),
    invalid_m: float = float("nan"),
    mask: NDArray[Any] | None = None,
    mask_role: str = "sky",
    mask_threshold: float = 0.5,
    confidence: NDArray[Any] | None = None,
    depth_dtype: str = "float32",
    raw_dtype: str | None = None,
    out: NDArray[Any] | None = None,
    workers: Workers | None = None,
) -> Postprocessed:
    """Compute depth and patch statistics from a network's raw output, in one pass.

    ``raw`` is float16 or float32 (B, H, W), or uint16 with bfloat16 bits and ``raw_dtype="bfloat16"``.
    ``conversion`` is one of linear (``scale * x + shift``), inverse (``1 / (scale * x + shift)`` of x > 0, else
    invalid), exp and log_sigmoid (the metric head's activation); ``depth_range`` is clamp or reject, for depth outside
    the bounds. ``depth_dtype`` is float32 (metres; invalid pixels are ``invalid_m``) or uint16 (millimetres; invalid
    pixels are 0). Depth is written to ``out`` (contiguous, of that dtype) if given, which avoids allocating large maps.
    Without names in ``stats``, only depth is computed, and S is 0.

    ``mask`` and ``confidence`` are float16 or float32, shaped as ``raw``. A mask of ``mask_role`` sky tells where there
    is sky, at ``mask_threshold`` and above: +inf in float32 depth, or 0 if ``invalid_m`` is 0; one of role mask where
    depth is valid, at the threshold and above. ``confidence`` is for the statistic ``conf``.
    """
    library = _require()
    source = readable(raw)
    options = abi.CPostprocessOptions(
        ctypes.sizeof(abi.CPostprocessOptions),
        enum(abi.CONVERSIONS, conversion, "conversion"),
        scale,
        shift,
        enum(abi.RANGES, depth_range, "depth_range"),
        min_depth,
        max_depth,
        invalid_m,
    )
    companions = [companion(mask, "mask", source.shape), companion(confidence, "confidence", source.shape)]
    options.mask, options.confidence = (item and ctypes.pointer(item[1]) for item in companions)
    options.mask_role, options.mask_threshold = enum(abi.MASKS, mask_role, "mask_role"), mask_threshold
    enum({"float32": 0, "uint16": 1}, depth_dtype, "depth_dtype")
    depth = np.empty(source.shape, depth_dtype) if out is None else out
    if depth.shape != source.shape or depth.dtype != depth_dtype or not depth.flags.c_contiguous:
        raise UsageError(f"out is {depth.dtype} {depth.shape}: expected contiguous {depth_dtype} {source.shape}")
    request, rows = _stats_request(source.shape, patch_size, stats) if stats else (None, _no_stats(source, patch_size))
    if source.shape[0]:
        map_in, map_out = map_of(source, raw_dtype or name_of(source.dtype)), map_of(depth, depth_dtype)
        handle = workers.handle if workers else None
        _check(library, library.mvde_postprocess(map_in, options, map_out, request, handle))
    return Postprocessed(depth, rows)


def _stats_request(
    shape: tuple[int, ...], patch_size: int, stats: Sequence[str]
) -> tuple[abi.CStatsRequest, NDArray[np.float32]]:
    batch, height, width = shape
    columns = _columns(tuple(stats))
    if patch_size < 1:
        raise UsageError(f"patch_size is {patch_size}: expected 1 or more")
    num_patches = (height // patch_size) * (width // patch_size)
    out = np.empty((batch, num_patches, len(stats)), np.float32)
    size = ctypes.sizeof(abi.CStatsRequest)
    return abi.CStatsRequest(size, patch_size, len(stats), columns, address(out), out.size), out


def _no_stats(source: NDArray[Any], patch_size: int) -> NDArray[np.float32]:
    batch, height, width = source.shape
    return np.empty((batch, (height // patch_size) * (width // patch_size), 0), np.float32)


@lru_cache
def _columns(stats: tuple[str, ...]) -> ctypes.Array[ctypes.c_int32]:
    if not 1 <= len(stats) <= abi.MAX_STATS:
        raise UsageError(f"stats has {len(stats)} names: expected 1 to {abi.MAX_STATS}")
    return (ctypes.c_int32 * len(stats))(*(enum(abi.STATS, name, "stats") for name in stats))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    path = library_path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        abi.declare(library)
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"libmvde cannot be loaded from {path}: {error}; reinstall mvde or unset MVDE_LIBRARY"
        ) from error
    found = _dotted(library.mvde_version())
    if not found.startswith(abi.VERSION):
        raise BackendError(
            f"{path} is libmvde {found}, but this mvde expects {abi.VERSION}x: reinstall mvde or unset MVDE_LIBRARY"
        )
    return library


def _dotted(version: int) -> str:
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def _require() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise BackendError(
            "libmvde is not installed beside this package: install a wheel, or build it with `make native`"
        )
    return library


def _last_error(library: ctypes.CDLL) -> str:
    message: bytes = library.mvde_last_error()
    return message.decode(errors="replace")


def _check(library: ctypes.CDLL, status: int) -> None:
    if status == 0:
        return
    kind: bytes = library.mvde_strerror(status)
    message = f"libmvde: {_last_error(library) or kind.decode()}"
    # Busy workers and lack of memory or threads are run-time failures; other codes are invalid arguments.
    raise (BackendError if status <= -7 else UsageError)(message)
