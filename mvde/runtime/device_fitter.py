"""Preprocessing and inference of frames in device memory, on the caller's stream."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvde.contract import DepthKind
from mvde.cuda.array import DeviceArray, DeviceView
from mvde.cuda.postprocess import DeviceMap, PostprocessOptions, postprocess_params
from mvde.cuda.preprocess import DeviceFrame, preprocess_params, resize_tables
from mvde.engines.process import ProcessGuard
from mvde.errors import ImageError, UsageError
from mvde.resampling import DEFAULT_RESAMPLING, Resampling
from mvde.runtime.placement import Fit, Placement, has_bars, place
from mvde.runtime.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mvde.camera import Camera
    from mvde.cuda.memory import CudaDevice, DeviceBuffer
    from mvde.engines.base import DeviceEngine, EngineInfo

_MAX_TABLES = 8  # cached frame sizes: a few cameras


@dataclass(frozen=True)
class DeviceResult:
    """Depth (B, H, W) and statistics (B, N, S), float32, in device memory, ordered on the caller's stream.

    Depth is at the model's resolution, the map of ``depth_kind`` for the frame's camera; pixels without depth are NaN
    or not above 0. ``stats`` is ``None`` if the GPU cannot compute them (NVRTC is not installed). ``grid`` is (rows,
    columns), with N = rows * columns. ``placement``, ``camera_factor``, ``camera_assumed``, ``calibrated`` and
    ``camera`` (of the frame, not of the model's input) are as in :class:`mvde.DepthResult`.
    """

    depth: DeviceArray
    stats: DeviceArray | None
    grid: tuple[int, int]
    stat_names: tuple[str, ...]
    depth_kind: DepthKind
    placement: Placement
    camera_factor: float
    camera_assumed: bool
    calibrated: str | None
    camera: Camera | None

    @property
    def unit(self) -> str:
        """Unit of ``depth``: ``"m"``, ``"1"`` (depth up to a scale) or ``"1/u"`` (inverse depth)."""
        return self.depth_kind.unit


class _Tables(NamedTuple):
    columns: DeviceBuffer
    rows: DeviceBuffer


class DeviceFitter:
    """Resizes frames of any size to the model's resolution on the GPU. Thread-safe."""

    def __init__(
        self,
        device: CudaDevice,
        resolution: tuple[int, int],
        kernels: Any = None,
        resampling: Resampling = DEFAULT_RESAMPLING,
        scaling: Any = None,
    ) -> None:
        """Prepare for frames; by default the kernels are created on first use.

        ``kernels`` is a :class:`mvde.cuda.launch.PreprocessKernels`, ``scaling`` a ``PostprocessKernels``.
        """
        self._device = device
        self._resolution = resolution
        self._resampling = resampling
        self._kernels, self._scaling = kernels, scaling
        self._tables: dict[tuple[tuple[int, int], Fit], _Tables] = {}
        self._lock = threading.Lock()
        self._process = ProcessGuard(self, "CUDA")

    def fit(self, frame: DeviceView, fit: Fit, stream: Any) -> tuple[DeviceView, DeviceBuffer]:
        """Resize a frame (H, W, 3), uint8, RGB, to (1, height, width, 3); return the view and its memory.

        Rows may be padded. Raises :class:`ImageError` for another kind of array, :class:`UsageError` if the fit leaves
        bars.
        """
        placement = _placement(frame, self._resolution, fit, self._resampling)
        height, width = self._resolution
        with self._lock:
            tables = self._tables_of(placement, fit)
            kernels = self._kernels = self._kernels or _make_kernels(self._device)
        target = self._device.allocate(3 * height * width, stream)
        pitch = frame.strides[0] if frame.strides is not None else 3 * frame.shape[1]
        params = preprocess_params(
            DeviceFrame(frame.address, pitch), placement, target.address, tables.columns.address, tables.rows.address
        )
        kernels.enqueue(params, stream)
        return DeviceView(target.address, (1, height, width, 3), None, "uint8"), target

    def scale(
        self,
        depth: DeviceArray,
        stats: DeviceArray | None,
        view: View,
        patch: int,
        names: Sequence[str],
        stream: Any,
    ) -> tuple[DeviceArray, DeviceArray | None]:
        """Return the map ``depth`` (B, H, W) as ``view`` scales it, and its statistics; frees those given.

        The statistics are ``names`` of patches of ``patch`` pixels, of the shape of ``stats``.
        """
        with self._lock:
            kernels = self._scaling = self._scaling or _make_scaling(self._device)
        batch, height, width = depth.shape
        scaled = self._device.allocate(depth.buffer.size_bytes, stream)
        rows = None if stats is None else self._device.allocate(stats.buffer.size_bytes, stream)
        params = postprocess_params(
            DeviceMap(depth.address),
            (batch, height, width),
            PostprocessOptions(scale=view.scale, invalid_m=view.invalid),
            depth=DeviceMap(scaled.address),
            stats_address=None if rows is None else rows.address,
            patch_size=patch,
            stats=names,
        )
        kernels.enqueue(params, "float32", stream)
        done = self._device.record(stream)
        depth.buffer.close()  # in stream order
        if stats is None or rows is None:
            return self._replaced(depth, scaled, done), None
        stats.buffer.close()
        return self._replaced(depth, scaled, done), self._replaced(stats, rows, done)

    def close(self) -> None:
        """Free the tables; no-op in a forked child."""
        if self._process.is_inherited:
            return
        with self._lock:
            for tables in self._tables.values():
                tables.columns.close()
                tables.rows.close()
            self._tables.clear()

    def _tables_of(self, placement: Placement, fit: Fit) -> _Tables:
        key = (placement.source_size, fit)
        if key not in self._tables:
            if len(self._tables) >= _MAX_TABLES:
                oldest = self._tables.pop(next(iter(self._tables)))
                oldest.columns.close()
                oldest.rows.close()
            self._tables[key] = _Tables(*(self._upload(table.packed()) for table in resize_tables(placement)))
        return self._tables[key]

    def _replaced(self, array: DeviceArray, buffer: DeviceBuffer, done: Any) -> DeviceArray:
        """The array with other content, complete after the event ``done``."""
        device = self._device
        return replace(array, buffer=buffer, make_wait=lambda handle: device.wait(device.stream_of(handle), done))

    def _upload(self, table: Any) -> DeviceBuffer:
        """Copy an array to device memory; synchronous, since it happens once per frame size."""
        stream = self._device.create_stream()
        staging = self._device.pinned(table.shape, table.dtype)
        np.copyto(staging.array, table)
        buffer = self._device.allocate(table.nbytes, stream)
        self._device.upload(buffer.address, staging.array, stream)
        self._device.synchronize(stream)
        staging.close()
        return buffer


def device_placement(view: DeviceView, info: EngineInfo, fit: Fit, resampling: Resampling) -> Placement:
    """Compute how a frame (H, W, 3), or each of a batch (B, H, W, 3) at the model's resolution, enters the input.

    Raises :class:`ImageError` for another kind of array, :class:`UsageError` if the fit leaves bars.
    """
    if len(view.shape) == 4:
        return place(info.resolution, info.resolution, Fit.STRETCH, resampling)
    return _placement(view, info.resolution, fit, resampling)


def enqueue_frame(
    engine: DeviceEngine, fitter: DeviceFitter, view: DeviceView, fit: Fit, stream: Any
) -> tuple[DeviceArray, DeviceArray | None]:
    """Run ``engine.enqueue`` on a frame (H, W, 3) of any size or a batch (B, H, W, 3) of the engine's shape.

    ``stream`` is a stream of the engine's device.
    """
    if len(view.shape) == 4:
        return engine.enqueue(view, stream)
    if engine.info.batch != 1:
        raise UsageError(
            f"engine {engine.info.id} takes {engine.info.batch} images per call, but got one frame of shape "
            f"{view.shape}; give a batch of shape {(engine.info.batch, *engine.info.resolution, 3)}"
        )
    fitted, memory = fitter.fit(view, fit, stream)
    results = engine.enqueue(fitted, stream)
    memory.close()  # freed in stream order, after the engine's copy of it
    return results


def _placement(frame: DeviceView, resolution: tuple[int, int], fit: Fit, resampling: Resampling) -> Placement:
    if len(frame.shape) != 3 or frame.shape[2] != 3 or frame.dtype != "uint8":
        raise ImageError(f"a device frame is (H, W, 3) uint8 RGB, but got shape {frame.shape} and dtype {frame.dtype}")
    if frame.strides is not None and tuple(frame.strides[1:]) != (3, 1):
        raise ImageError(f"a device frame may pad its rows only, but got strides {frame.strides} (elements)")
    placement = place((frame.shape[0], frame.shape[1]), resolution, fit, resampling)
    if has_bars(placement):
        raise UsageError(
            f"fit {fit.value!r} of {frame.shape[0]}x{frame.shape[1]} into {resolution[0]}x{resolution[1]} leaves bars, "
            "whose statistics a device call cannot clear; use stretch or crop, or infer with a NumPy array"
        )
    return placement


def _make_scaling(device: CudaDevice) -> Any:
    from mvde.cuda.launch import PostprocessKernels

    return PostprocessKernels(device.core_device)


def _make_kernels(device: CudaDevice) -> Any:
    from mvde.cuda.launch import PreprocessKernels

    return PreprocessKernels(device.core_device)
