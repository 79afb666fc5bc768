"""A plan file in the library's hands: deserialised, compared with its manifest, bound to memory, executed."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.cache import tensorrt_cache_dir
from mvde.errors import BackendError, IncompatibleEngineError, OutputError
from mvde.files import atomic_write

if TYPE_CHECKING:
    from mvde.cuda.memory import CudaDevice
    from mvde.engines.opened import OpenedEngine
    from mvde.engines.tensorrt.api import Api
    from mvde.manifest import Manifest

RUNTIME_CACHE_SUFFIX = ".runtime-cache"
_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


class LoadedPlan:
    """An engine of the library with its one execution context; not safe to use from two threads at once."""

    def __init__(
        self, api: Api, engine: Any, path: Path, manifest: Manifest, runtime: Any = None, size_bytes: int = 0
    ) -> None:
        """``runtime`` is kept, since the library asks that it outlives the engine."""
        self._size_bytes = size_bytes
        self._api = api
        self._runtime = runtime
        self._engine = engine
        self._input, self._output = _checked_tensors(api, engine, manifest, path)
        self._cache = _RuntimeCache(api, engine, path) if api.is_rtx else None
        config = self._cache.config if self._cache is not None else None
        context = engine.create_execution_context(config) if config is not None else engine.create_execution_context()
        if context is None:
            raise BackendError(f"{api.library.title} has no memory to run {path}: {api.complaint()}")
        self._context = context

    @property
    def size_bytes(self) -> int:
        """Device memory that the plan took when it was deserialised."""
        return self._size_bytes

    def bind(self, input_address: int, output_address: int) -> None:
        """Tell the library where the images and the depth lie from now on."""
        for name, address in ((self._input, input_address), (self._output, output_address)):
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"{self._api.library.title} refuses the memory of {name}: {self._api.complaint()}")

    def execute(self, stream: Any) -> None:
        """Queues one run on ``stream``. Raises :class:`BackendError` where the library refuses."""
        if not self._context.execute_async_v3(int(stream.handle)):
            raise BackendError(f"{self._api.library.title} failed to run the engine: {self._api.complaint()}")

    def is_capturable(self, stream: Any) -> bool:
        """Whether a run can be captured into a CUDA graph; TensorRT tells only by failing."""
        return not self._api.is_rtx or bool(self._context.is_stream_capturable(int(stream.handle)))

    def keep_runtime_cache(self) -> None:
        """Store what TensorRT-RTX compiled for this GPU, so that the next start does not."""
        if self._cache is not None:
            self._cache.save()

    def layers(self) -> str:
        """The engine inspector's report, JSON: layers as they were fused, with their dtypes and tactics."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._api.module.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free the context before the engine, and the engine before the runtime."""
        self._context = None
        self._cache = None
        self._engine = None
        self._runtime = None


def load_plan(api: Api, device: CudaDevice, opened: OpenedEngine) -> LoadedPlan:
    """The plan that was opened.

    Raises :class:`IncompatibleEngineError` with the library's reason where it is refused.
    """
    runtime = api.runtime()
    path, manifest = opened.path, opened.manifest
    if manifest.engine.options.get("version_compatible"):
        runtime.engine_host_code_allowed = True  # such plans carry a small runtime of their own, as code
    content = bytes(opened.content.view())
    free_bytes = device.free_bytes()
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        why = _validity(api, runtime, content) or api.complaint()
        raise IncompatibleEngineError(
            f"{api.library.title} {api.version} cannot load {path}: {why}; build it again: "
            f"mvde build --engine {manifest.engine.id}"
        )
    return LoadedPlan(api, engine, path, manifest, runtime, max(0, free_bytes - device.free_bytes()))


class _RuntimeCache:
    """What TensorRT-RTX compiles for a GPU, kept beside the engine, or in the user's cache where that is read-only."""

    def __init__(self, api: Api, engine: Any, path: Path) -> None:
        self.config = engine.create_runtime_config()
        self._cache = self.config.create_runtime_cache()
        beside = path.with_suffix(RUNTIME_CACHE_SUFFIX)
        digest = hashlib.sha256(f"{api.version} {path.resolve()}".encode()).hexdigest()[:16]
        self._paths = (beside, tensorrt_cache_dir() / "runtime" / f"{digest}{RUNTIME_CACHE_SUFFIX}")
        self._stored = b""
        for where in self._paths:
            with contextlib.suppress(OSError):
                content = where.read_bytes()
                # The library compares version, GPU and driver itself, and leaves the cache empty where they differ.
                if self._cache.deserialize(content):
                    self._stored = content
                    break
        self.config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the cache where it differs from what was read. A failure costs the next start its time."""
        memory = self._cache.serialize()
        content = bytes(memoryview(memory)) if memory is not None else b""
        if not content or content == self._stored:
            return
        for where in self._paths:
            with contextlib.suppress(OutputError, OSError), atomic_write(where) as temporary:
                temporary.write_bytes(content)
            if where.is_file() and where.stat().st_size == len(content):
                self._stored = content
                return


def _validity(api: Api, runtime: Any, content: bytes) -> str:
    """What TensorRT-RTX says is wrong with a plan, such as ``"OLD_CUDA_DRIVER"``; empty where it says nothing."""
    if not api.is_rtx:
        return ""
    validity, bits = runtime.get_engine_validity(content)
    flags = api.module.EngineInvalidityDiagnostics
    named = [name for name in dir(flags) if name.isupper() and int(getattr(flags, name)) & int(bits)]
    return f"it is {validity.name.lower()} here ({', '.join(named) or 'no reason given'})"


def _checked_tensors(api: Api, engine: Any, manifest: Manifest, path: Path) -> tuple[str, str]:
    """Names of input and output. Raises :class:`IncompatibleEngineError` where they are not as the manifest says."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = api.module.TensorIOMode
    inputs = [name for name in names if engine.get_tensor_mode(name) == modes.INPUT]
    outputs = [name for name in names if engine.get_tensor_mode(name) == modes.OUTPUT]
    stated = (manifest.inputs[0], manifest.outputs[0])
    found = [(name, _dtype(engine, name), tuple(engine.get_tensor_shape(name))) for name in (*inputs, *outputs)]
    expected = [(spec.name, spec.dtype, spec.shape) for spec in stated]
    if found != expected:
        raise IncompatibleEngineError(f"{path} has the tensors {found}, but its manifest states {expected}")
    return inputs[0], outputs[0]


def _dtype(engine: Any, name: str) -> str:
    dtype = str(engine.get_tensor_dtype(name).name)
    return _DTYPES.get(dtype, dtype)
