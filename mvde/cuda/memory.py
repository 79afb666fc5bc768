"""GPU memory, streams and graphs through cuda-core and cuda-bindings, without torch or pycuda."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.cuda.gpu import checked, require_gpu
from mvde.errors import BackendError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


@dataclass
class DeviceBuffer:
    """Device memory; ``owner`` (a ``cuda.core.Buffer``) frees it in :meth:`close` or when garbage-collected."""

    address: int
    size_bytes: int
    owner: Any

    def close(self) -> None:
        """Free the memory."""
        self.owner.close()


@dataclass
class PinnedArray:
    """Page-locked host memory as an array, for GPU copies without the driver's staging buffer."""

    array: NDArray[Any]
    owner: Any

    def close(self) -> None:
        """Free the memory. The array must not be used afterwards."""
        self.owner.close()


class CapturedGraph:
    """A captured CUDA graph; its memory addresses are fixed at capture."""

    def __init__(self, driver: Any, graph: Any) -> None:
        self._driver = driver
        self._graph = graph
        self._executable = checked(driver.cuGraphInstantiate(graph, 0))

    def launch(self, stream: Any) -> None:
        """Enqueue the graph on ``stream``. Raises :class:`BackendError` if the launch fails."""
        checked(self._driver.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        """Free the graph."""
        self._driver.cuGraphExecDestroy(self._executable)
        self._driver.cuGraphDestroy(self._graph)


class CudaDevice:
    """The first GPU. All methods but :meth:`synchronize` are asynchronous; call :meth:`use` in each new thread."""

    def __init__(self) -> None:
        """Make the GPU current. Raises :class:`BackendError` without one, MissingDependencyError without cuda-core."""
        require_gpu("running an engine on TensorRT")
        try:
            import cuda.core
            from cuda.bindings import driver
        except ImportError as error:
            raise MissingDependencyError.for_extra("cuda-core", "cuda", "running an engine on a GPU") from error
        self._core = cuda.core
        self._driver = driver
        self.core_device = cuda.core.Device(0)
        self.core_device.set_current()

    def use(self) -> None:
        """Make the device current in the calling thread."""
        self.core_device.set_current()

    def create_stream(self) -> Any:
        """Create a stream that does not synchronise with the default stream."""
        return self.core_device.create_stream()

    def stream_of(self, caller: Any) -> Any:
        """Wrap a stream: a handle (int), a ``cuda.core.Stream``, or an object with ``__cuda_stream__``."""
        if isinstance(caller, int):
            return self._core.Stream.from_handle(caller)
        if hasattr(caller, "handle"):
            return caller
        if hasattr(caller, "__cuda_stream__"):
            return self.core_device.create_stream(caller)
        if hasattr(caller, "cuda_stream"):  # torch.cuda.Stream of versions without the protocol
            return self._core.Stream.from_handle(int(caller.cuda_stream))
        raise UsageError(f"stream is a {type(caller).__name__}; give a handle (int) or an object with __cuda_stream__")

    def allocate(self, size_bytes: int, stream: Any) -> DeviceBuffer:
        """Allocate device memory in stream order: usable by work enqueued on ``stream`` afterwards."""
        buffer = self.core_device.allocate(size_bytes, stream=stream)
        return DeviceBuffer(int(buffer.handle), size_bytes, buffer)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> PinnedArray:
        """Allocate a page-locked host array."""
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = self._core.LegacyPinnedMemoryResource().allocate(size_bytes)
        content = (ctypes.c_uint8 * size_bytes).from_address(int(buffer.handle))
        return PinnedArray(np.frombuffer(memoryview(content), np.dtype(dtype)).reshape(shape), buffer)

    def upload(self, target_address: int, source: NDArray[Any], stream: Any) -> None:
        """Enqueue a copy of a pinned array to the device."""
        checked(self._driver.cuMemcpyHtoDAsync(target_address, source.ctypes.data, source.nbytes, stream.handle))

    def download(self, target: NDArray[Any], source_address: int, stream: Any) -> None:
        """Enqueue a copy from the device to a pinned array."""
        checked(self._driver.cuMemcpyDtoHAsync(target.ctypes.data, source_address, target.nbytes, stream.handle))

    def copy(self, target_address: int, source_address: int, size_bytes: int, stream: Any) -> None:
        """Enqueue a copy within device memory."""
        checked(self._driver.cuMemcpyDtoDAsync(target_address, source_address, size_bytes, stream.handle))

    def synchronize(self, stream: Any) -> None:
        """Wait for all work on the stream. Raises :class:`BackendError` if it failed."""
        checked(self._driver.cuStreamSynchronize(stream.handle))

    def record(self, stream: Any) -> Any:
        """Record an event after the work enqueued on ``stream`` so far."""
        return stream.record()

    def wait(self, stream: Any, event: Any) -> None:
        """Make later work on ``stream`` wait for the event."""
        stream.wait(event)

    def time_mark(self, stream: Any) -> Any:
        """Record a timing event after the work enqueued on ``stream`` so far; see :meth:`elapsed_ms`."""
        return stream.record(options=self._core.EventOptions(timing_enabled=True))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Device time between two timing events in milliseconds; both must have completed."""
        return float(end - start)

    def free_bytes(self) -> int:
        """Free device memory in bytes."""
        free, _ = checked(self._driver.cuMemGetInfo())
        return int(free)

    def capture(self, stream: Any, work: Callable[[], None]) -> CapturedGraph:
        """Capture what ``work`` enqueues on ``stream`` into a graph, without running it.

        Raises :class:`BackendError` if something cannot be captured; the stream remains usable.
        """
        # Thread-local mode: other threads (a camera driver, say) may allocate during the capture.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        checked(self._driver.cuStreamBeginCapture(stream.handle, mode))
        try:
            work()
        except BaseException:
            with contextlib.suppress(BackendError):  # report the original error
                checked(self._driver.cuStreamEndCapture(stream.handle))
            raise
        return CapturedGraph(self._driver, checked(self._driver.cuStreamEndCapture(stream.handle)))
