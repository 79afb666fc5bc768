"""Fakes of a GPU and of TensorRT in host memory: streams run in order, and captured graphs on launch.

They enforce the real rules: addresses must lie in an allocation, copies stay inside it, memory is freed in stream
order, work runs when its stream is synchronised (not when it is queued), and a captured graph keeps its addresses.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from mvde.cuda.memory import DeviceBuffer, PinnedArray
from mvde.errors import BackendError
from mvde.stats import STATS, numpy_patch_stats

Work = tuple[str, Callable[[], None]]


class FakeStream:
    """Queue of named work items."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.queue: list[Work] = []


class FakeGraph:
    def __init__(self, device: FakeDevice, work: list[Work]) -> None:
        self.device, self.work, self.is_closed = device, work, False

    def launch(self, stream: FakeStream) -> None:
        self.device.log.append("launch")
        stream.queue += self.work

    def close(self) -> None:
        self.is_closed = True


class FakeDevice:
    """``CudaDevice`` in host memory. ``log`` records the calls in order; ``can_capture`` enables graph capture."""

    def __init__(self, can_capture: bool = True) -> None:
        self.can_capture = can_capture
        self.log: list[str] = []
        self.allocations: dict[int, Any] = {}
        self.streams: dict[int, FakeStream] = {}
        self.capturing: list[Work] | None = None
        self._handles = itertools.count(1)

    def use(self) -> None:
        self.log.append("use")

    def create_stream(self) -> FakeStream:
        stream = FakeStream(next(self._handles))
        self.streams[stream.handle] = stream
        return stream

    def stream_of(self, caller: int) -> FakeStream:
        return self.streams[caller]

    def allocate(self, size_bytes: int, stream: FakeStream) -> DeviceBuffer:
        memory = (ctypes.c_uint8 * size_bytes)()
        ctypes.memset(memory, 0xCD, size_bytes)  # uninitialised memory must not look valid
        address = ctypes.addressof(memory)
        self.allocations[address] = memory

        def free() -> None:
            self.allocations.pop(address)

        def close() -> None:  # stream-ordered, like CUDA's memory pools
            stream.queue.append(("free", free)) if stream.queue else free()

        return DeviceBuffer(address, size_bytes, SimpleNamespace(close=close))

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> PinnedArray:
        return PinnedArray(np.zeros(shape, dtype), SimpleNamespace(close=lambda: None))

    def upload(self, target_address: int, source: np.ndarray, stream: FakeStream) -> None:
        memory = self.inside(target_address, source.nbytes)
        self.submit(stream, "upload", lambda: ctypes.memmove(memory, source.ctypes.data, source.nbytes))

    def download(self, target: np.ndarray, source_address: int, stream: FakeStream) -> None:
        memory = self.inside(source_address, target.nbytes)
        self.submit(
            stream, f"download {target.nbytes}", lambda: ctypes.memmove(target.ctypes.data, memory, target.nbytes)
        )

    def copy(self, target_address: int, source_address: int, size_bytes: int, stream: FakeStream) -> None:
        target, source = self.inside(target_address, size_bytes), self.inside(source_address, size_bytes)
        self.submit(stream, f"copy {size_bytes}", lambda: ctypes.memmove(target, source, size_bytes))

    def synchronize(self, stream: FakeStream) -> None:
        self.log.append("synchronize")
        queue, stream.queue = stream.queue, []
        for _, work in queue:
            work()

    def record(self, stream: FakeStream) -> FakeStream:
        return stream

    def wait(self, stream: FakeStream, event: FakeStream) -> None:
        self.log.append("wait")
        if event is not stream:
            stream.queue.append(("wait", lambda: self.synchronize(event)))

    def free_bytes(self) -> int:
        return 1 << 30 if not self.allocations else (1 << 30) - sum(map(len, self.allocations.values()))

    def time_mark(self, stream: FakeStream) -> float:
        return float(len(stream.queue))

    def elapsed_ms(self, start: float, end: float) -> float:
        return end - start

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> FakeGraph:
        if not self.can_capture:
            raise BackendError("CUDA answered CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        self.capturing = []
        work()
        captured, self.capturing = self.capturing, None
        return FakeGraph(self, captured)

    def submit(self, stream: FakeStream, name: str, work: Callable[[], None]) -> None:
        """Queue work, or add it to the graph being captured."""
        self.log.append(name)
        (stream.queue if self.capturing is None else self.capturing).append((name, work))

    def inside(self, address: int, size_bytes: int) -> int:
        """The address, checked to have ``size_bytes`` of one allocation."""
        for start, memory in self.allocations.items():
            if start <= address and address + size_bytes <= start + len(memory):
                return address
        raise AssertionError(f"{size_bytes} bytes at {address:#x} are in no allocation")

    def array(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """View of device memory as an array."""
        size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        content = (ctypes.c_uint8 * size_bytes).from_address(self.inside(address, size_bytes))
        return np.frombuffer(content, dtype).reshape(shape)

    def put(self, array: np.ndarray) -> int:
        """Address of a copy of an array in device memory, as if allocated by a caller."""
        array = np.ascontiguousarray(array)
        buffer = self.allocate(array.nbytes, FakeStream(0))
        ctypes.memmove(buffer.address, array.ctypes.data, array.nbytes)
        return buffer.address


class FakeKernel:
    """The fused kernel: scales depth in device memory and computes the NumPy specification's statistics of it."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def enqueue(self, params: Any, raw_dtype: str, stream: FakeStream) -> None:
        def scaled() -> np.ndarray:
            values = raw * np.float32(params.scale)
            return np.where(values > 0, values, np.float32(params.invalid_m))

        shape = (params.batch, params.height, params.width)
        raw = self.device.array(params.raw, shape, raw_dtype)
        depth = self.device.array(params.depth, shape, np.float32) if params.depth else None
        if not params.stats:
            self.device.submit(stream, "scaling", lambda: np.copyto(depth, scaled()))
            return
        num_patches = (params.height // params.patch) * (params.width // params.patch)
        out = self.device.array(params.stats, (params.batch, num_patches, params.num_columns), np.float32)

        def compute() -> None:
            names = [STATS[params.columns >> 4 * column & 15] for column in range(params.num_columns)]
            out[...] = numpy_patch_stats(scaled(), params.patch, names)
            if depth is not None:
                depth[...] = scaled()

        self.device.submit(stream, "statistics", compute)


class FakeContext:
    """Execution context that computes ``depth`` of the bound images."""

    def __init__(self, device: FakeDevice, shape: tuple[int, ...], depth: Callable[[np.ndarray], np.ndarray]) -> None:
        self.device, self.shape, self.depth = device, shape, depth
        self.bound: dict[str, int] = {}
        self.answers = True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.device.log.append(f"bind {name}")
        self.bound[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        images = self.device.array(self.bound["image"], self.shape, np.uint8)
        out = self.device.array(self.bound["depth"], self.shape[:3], np.float32)

        def compute() -> None:
            out[...] = self.depth(images)

        self.device.submit(self.device.streams[handle], "engine", compute)
        return self.answers

    def is_stream_capturable(self, handle: int) -> bool:
        return True


class FakeEngine:
    """Deserialised plan with one uint8 input and one float32 output."""

    num_io_tensors = 2

    def __init__(self, context: FakeContext, dtype: str = "UINT8") -> None:
        self.context, self.dtype = context, dtype

    def get_tensor_name(self, index: int) -> str:
        return ("image", "depth")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"image": "input", "depth": "output"}[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype if name == "image" else "FLOAT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.context.shape if name == "image" else self.context.shape[:3]

    def create_execution_context(self) -> FakeContext:
        return self.context


def fake_api(**changes: Any) -> Any:
    """Fake of :class:`mvde.engines.tensorrt.api.Api` for TensorRT."""
    module = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"))
    library = SimpleNamespace(title="TensorRT", backend="tensorrt")
    values = {
        "module": module,
        "library": library,
        "is_rtx": False,
        "version": "10.16.1",
        "complaint": lambda: "because",
    }
    return SimpleNamespace(**(values | changes))
