"""Preprocessing and inference of frames in device memory, on the caller's stream."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvde.contract import DepthKind
from mvde.cuda.array import DeviceArray, DeviceView, view_of
from mvde.cuda.preprocess import DeviceFrame, preprocess_params, resize_tables
from mvde.engines.process import ProcessGuard
from mvde.errors import ImageError, UsageError
from mvde.resampling import DEFAULT_RESAMPLING, Resampling
from mvde.runtime.placement import Fit, Placement, check_fit, has_bars, place

if TYPE_CHECKING:
    from mvde.cuda.memory import CudaDevice, DeviceBuffer
    from mvde.engines.base import DeviceEngine

_MAX_TABLES = 8  # cached frame sizes: a few cameras


@dataclass(frozen=True)
class DeviceResult:
    """Depth (B, H, W) and statistics (B, N, S), float32, in device memory, ordered on the caller's stream.

    Depth is at the model's resolution, the map of ``depth_kind`` for the model's canonical camera, if it has one
    (``camera_assumed``); ``stats`` is ``None`` if the GPU cannot compute them (NVRTC is not installed). ``grid`` is
    (rows, columns), with N = rows * columns.
    """

    depth: DeviceArray
    stats: DeviceArray | None
    grid: tuple[int, int]
    stat_names: tuple[str, ...]
    depth_kind: DepthKind
    camera_assumed: bool

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
    ) -> None:
        """``kernels`` is a :class:`mvde.cuda.launch.PreprocessKernels`; by default created on first use."""
        self._device = device
        self._resolution = resolution
        self._resampling = resampling
        self._kernels = kernels
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


def enqueue_frame(
    engine: DeviceEngine, fitter: DeviceFitter, frame: Any, fit: Fit | str, stream: Any
) -> tuple[DeviceArray, DeviceArray | None]:
    """Run ``engine.enqueue`` on a frame (H, W, 3) of any size or a batch (B, H, W, 3) of the engine's shape.

    ``frame`` has ``__dlpack__`` or ``__cuda_array_interface__``; ``stream`` is a stream of the engine's device.
    """
    fit = check_fit(fit)
    view = view_of(frame, int(stream.handle))
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


def _make_kernels(device: CudaDevice) -> Any:
    from mvde.cuda.launch import PreprocessKernels

    return PreprocessKernels(device.core_device)
