"""TensorRT plan as an engine: buffers bound once, network and statistics in one CUDA graph, host or device arrays."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mvde.contract import OutputRole
from mvde.cuda.array import DeviceArray, DeviceView, check_dense
from mvde.cuda.postprocess import DeviceMap, PostprocessOptions, postprocess_params
from mvde.engines.base import EngineInfo, check_images, closed_error
from mvde.engines.process import ProcessGuard
from mvde.engines.tensorrt.loaded_plan import LoadedPlan, load_plan
from mvde.errors import BackendError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.cuda.gpu import Gpu
    from mvde.cuda.memory import CapturedGraph, CudaDevice, DeviceBuffer, PinnedArray
    from mvde.engines.base import Maps
    from mvde.engines.opened import OpenedEngine
    from mvde.engines.tensorrt.api import Api
    from mvde.manifest import Manifest


class StatsKernel(Protocol):
    """The fused kernel; see :class:`mvde.cuda.launch.PostprocessKernels`."""

    def enqueue(self, params: Any, raw_dtype: str, stream: Any) -> None:
        """Launch the kernel on ``stream``."""
        ...


@dataclass(frozen=True)
class _Buffers:
    """Memory of one engine: device buffers of images, maps and statistics, and their page-locked host buffers."""

    images: DeviceBuffer
    maps: dict[OutputRole, DeviceBuffer]
    stats: DeviceBuffer
    pinned_images: PinnedArray
    pinned_maps: dict[OutputRole, PinnedArray]
    pinned_stats: PinnedArray

    @property
    def depth(self) -> DeviceBuffer:
        """Device buffer of the depth map."""
        return self.maps[OutputRole.DEPTH]

    @property
    def results(self) -> list[tuple[PinnedArray, DeviceBuffer]]:
        """Host and device buffers of all maps, depth first, then those of the statistics."""
        maps = [(self.pinned_maps[role], self.maps[role]) for role in self.maps]
        return [*maps, (self.pinned_stats, self.stats)]

    def close(self) -> None:
        """Free all buffers."""
        for pinned, buffer in [(self.pinned_images, self.images), *self.results]:
            pinned.close()
            buffer.close()


class TensorRtEngine:
    """A plan on the GPU as an :class:`~mvde.engines.base.Engine`; concurrent calls are serialised.

    To avoid copies, :meth:`patch_stats` transfers only the statistics to the host, and :meth:`enqueue` takes and
    returns device arrays on the caller's stream.
    """

    def __init__(
        self, plan: LoadedPlan, device: CudaDevice, manifest: Manifest, info: EngineInfo, kernel: StatsKernel | None
    ) -> None:
        """Bind ``plan``. ``kernel`` computes the statistics, of depth alone; without one the CPU does."""
        free_bytes = device.free_bytes() + plan.size_bytes
        self._plan: LoadedPlan | None = plan
        self._device = device
        self._info = info
        self._kernel = kernel
        self._manifest = manifest
        self._stats_shape = (info.batch, manifest.grid[0] * manifest.grid[1], len(manifest.stats))
        self._process = ProcessGuard(self, "CUDA")
        self._lock = threading.Lock()
        self._stream = device.create_stream()
        self._last: Any = None
        self._buffers = self._allocate()
        plan.bind(self._buffers.images.address, [buffer.address for buffer in self._buffers.maps.values()])
        self._graph, self.graph_note = self._capture()
        self._memory_bytes = max(0, free_bytes - device.free_bytes())

    @property
    def info(self) -> EngineInfo:
        """Backend, precision, device and shape of the engine."""
        return self._info

    @property
    def device(self) -> CudaDevice:
        """The GPU that the engine runs on."""
        return self._device

    def stream_of(self, caller: Any = None) -> Any:
        """Wrap the caller's stream; defaults to the engine's own stream. See ``CudaDevice.stream_of``."""
        self._process.check(f"engine {self._info.id}")
        self._device.use()
        return self._stream if caller is None else self._device.stream_of(caller)

    @property
    def has_stats(self) -> bool:
        """Whether the statistics are computed on the GPU."""
        return self._kernel is not None

    @property
    def stat_names(self) -> tuple[str, ...]:
        """Columns of the statistics, those of the manifest it was loaded with."""
        return self._manifest.stats

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer depth (B, H, W), float32, from RGB images (B, H, W, 3), uint8; see ``base.Engine``."""
        return self._run(images, lambda buffers: buffers.results[:1])[0]

    def infer_maps(self, images: NDArray[np.uint8]) -> Maps:
        """Infer all outputs by role, each (B, H, W), float32; see ``base.Engine``."""
        maps = self._run(images, lambda buffers: buffers.results[:-1])
        return dict(zip(self._manifest.output_names, maps, strict=True))

    def infer_with_stats(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Infer depth (B, H, W), float32, and statistics (B, N, S), float32, both on the GPU."""
        depth, stats = self._run(images, lambda buffers: [buffers.results[0], buffers.results[-1]])
        return depth, stats

    def patch_stats(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Infer statistics (B, N, S), float32; only these B x N x S floats are copied to the host."""
        return self._run(images, lambda buffers: buffers.results[-1:])[0]

    def enqueue(self, images: DeviceView, on: Any) -> tuple[DeviceArray, DeviceArray | None]:
        """Enqueue inference on ``on``; return depth (B, H, W) and statistics (B, N, S) in device memory.

        Asynchronous; the caller owns the results. ``images`` are (B, H, W, 3), uint8, dense, in device memory; ``on``
        comes from :meth:`stream_of`. Raises :class:`UsageError` for other images.
        """
        self._check_view(images)
        with self._entered():
            self._device.use()
            self._follow(on)
            self._device.copy(self._buffers.images.address, images.address, self._buffers.images.size_bytes, on)
            self._work(on)
            depth = self._copy_out(self._buffers.depth, on)
            stats = self._copy_out(self._buffers.stats, on) if self.has_stats else None
            self._last = self._device.record(on)
            depth_shape = (self._info.batch, *self._info.resolution)
            return (
                self._array(depth, depth_shape, on, self._last),
                None if stats is None else self._array(stats, self._stats_shape, on, self._last),
            )

    def layers(self) -> str:
        """The engine inspector's report as JSON: fused layers with their dtypes and tactics."""
        with self._entered():
            assert self._plan is not None
            return self._plan.layers()

    def device_times_ms(self, images: NDArray[np.uint8], count: int) -> list[float]:
        """GPU time in milliseconds of each of ``count`` runs, network and statistics, by CUDA events."""
        self.infer(images)  # uploads the images
        with self._entered():
            self._device.use()
            marks = [self._device.time_mark(self._stream)]
            for _ in range(count):
                self._work(self._stream)
                marks.append(self._device.time_mark(self._stream))
            self._device.synchronize(self._stream)
            return [self._device.elapsed_ms(start, end) for start, end in itertools.pairwise(marks)]

    def device_memory_bytes(self) -> int:
        """Device memory of the engine in bytes: the drop in free memory during loading."""
        return self._memory_bytes

    def close(self) -> None:
        """Free the plan and its memory; no-op in a forked child."""
        if self._process.is_inherited:
            return
        with self._lock:
            if self._plan is None:
                return
            self._device.use()
            self._device.synchronize(self._stream)
            if self._graph is not None:
                self._graph.close()
            self._plan.close()
            self._plan = None
            self._buffers.close()

    def _allocate(self) -> _Buffers:
        batch, (height, width) = self._info.batch, self._info.resolution
        images, depth = (batch, height, width, 3), (batch, height, width)
        device, stream, roles = self._device, self._stream, self._manifest.output_names
        buffers = _Buffers(
            images=device.allocate(_num_bytes(images, 1), stream),
            maps={role: device.allocate(_num_bytes(depth, 4), stream) for role in roles},
            stats=device.allocate(_num_bytes(self._stats_shape, 4), stream),
            pinned_images=device.pinned(images, np.uint8),
            pinned_maps={role: device.pinned(depth, np.float32) for role in roles},
            pinned_stats=device.pinned(self._stats_shape, np.float32),
        )
        device.synchronize(stream)
        return buffers

    def _capture(self) -> tuple[CapturedGraph | None, str]:
        """Capture network and statistics in a CUDA graph; without a graph, return the reason."""
        assert self._plan is not None
        self._work_uncaptured(self._stream)  # TensorRT requires a run before capture: it allocates and compiles
        self._device.synchronize(self._stream)
        self._plan.keep_runtime_cache()
        if not self._plan.is_capturable(self._stream):
            return None, "TensorRT cannot capture this engine into a CUDA graph"
        try:
            return self._device.capture(self._stream, lambda: self._work_uncaptured(self._stream)), ""
        except BackendError as error:
            return None, f"capturing the engine into a CUDA graph failed: {error}"

    def _run(
        self, images: NDArray[np.uint8], wanted: Callable[[_Buffers], list[tuple[PinnedArray, DeviceBuffer]]]
    ) -> list[NDArray[np.float32]]:
        """Run one batch and return host copies of the wanted outputs; only those are downloaded."""
        check_images(images, self._info)
        with self._entered():
            self._device.use()
            buffers, stream = self._buffers, self._stream
            self._follow(stream)
            np.copyto(buffers.pinned_images.array, images)
            self._device.upload(buffers.images.address, buffers.pinned_images.array, stream)
            self._work(stream)
            chosen = wanted(buffers)
            for pinned, source in chosen:
                self._device.download(pinned.array, source.address, stream)
            self._device.synchronize(stream)
            return [pinned.array.copy() for pinned, _ in chosen]

    def _follow(self, stream: Any) -> None:
        """Make ``stream`` wait for the previous call, possibly on another stream: they share the buffers."""
        if self._last is not None:
            self._device.wait(stream, self._last)
            self._last = None

    def _work(self, stream: Any) -> None:
        if self._graph is not None:
            self._graph.launch(stream)
        else:
            self._work_uncaptured(stream)

    def _work_uncaptured(self, stream: Any) -> None:
        """Enqueue the network, then the statistics kernel on its output in place."""
        assert self._plan is not None
        self._plan.execute(stream)
        if self._kernel is None:
            return
        shape = (self._info.batch, *self._info.resolution)
        params = postprocess_params(
            DeviceMap(self._buffers.depth.address),
            shape,
            PostprocessOptions(),
            stats_address=self._buffers.stats.address,
            patch_size=self._manifest.stats_patch,
            stats=self._manifest.stats,
        )
        self._kernel.enqueue(params, "float32", stream)

    def _copy_out(self, source: DeviceBuffer, stream: Any) -> DeviceBuffer:
        """Copy for the caller: the next call overwrites the engine's buffers."""
        target = self._device.allocate(source.size_bytes, stream)
        self._device.copy(target.address, source.address, source.size_bytes, stream)
        return target

    def _array(self, buffer: DeviceBuffer, shape: tuple[int, ...], stream: Any, done: Any) -> DeviceArray:
        """Wrap the result as an array that a consumer's stream can wait for."""
        device = self._device
        return DeviceArray(
            buffer,
            shape,
            int(stream.handle),
            make_wait=lambda handle: device.wait(device.stream_of(handle), done),
        )

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Hold the engine's lock. Raises if the engine is closed or was inherited by a fork."""
        self._process.check(f"engine {self._info.id}")
        with self._lock:
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._plan is None:
            raise closed_error(self._info)

    def _check_view(self, images: DeviceView) -> None:
        expected = (self._info.batch, *self._info.resolution, 3)
        if images.shape != expected or images.dtype != "uint8":
            raise UsageError(
                f"engine {self._info.id} takes device images of shape {expected} and dtype uint8, but got shape "
                f"{images.shape} and dtype {images.dtype}"
            )
        check_dense(images)


def load(api: Api, gpu: Gpu, opened: OpenedEngine) -> TensorRtEngine:
    """Load an opened plan on this machine's GPU.

    Raises :class:`IncompatibleEngineError` if the library rejects it, :class:`BackendError` if the GPU fails.
    """
    from mvde.cuda.memory import CudaDevice

    device = CudaDevice()
    manifest = opened.manifest
    plan = load_plan(api, device, opened)
    needs_maps = any(role.has_threshold for role in manifest.output_names) or "conf" in manifest.stats
    kernel = None if needs_maps else _stats_kernel(device)
    reason = "they need more outputs than depth" if needs_maps else "NVRTC is not installed"
    statistics = f"on the CPU: {reason}" if kernel is None else "on the GPU"
    info = EngineInfo.of(manifest, device=str(gpu), library_version=api.version, options={"statistics": statistics})
    return TensorRtEngine(plan, device, manifest, info, kernel)


def _stats_kernel(device: CudaDevice) -> StatsKernel | None:
    """The fused kernel for this GPU; ``None`` without NVRTC, in which case the CPU computes the statistics."""
    from mvde.cuda.launch import PostprocessKernels

    try:
        return PostprocessKernels(device.core_device)
    except MissingDependencyError:
        return None


def _num_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    return int(np.prod(shape)) * itemsize
