"""A deserialised plan: checked against its manifest, bound to memory and executed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.cache import tensorrt_cache_dir
from mvde.errors import BackendError, IncompatibleEngineError, OutputError
from mvde.files import atomic_write

if TYPE_CHECKING:
    from mvde.cuda.memory import CudaDevice
    from mvde.engines.opened import OpenedEngine
    from mvde.engines.tensorrt.api import Api
    from mvde.manifest import InputSpec, Manifest, OutputSpec

RUNTIME_CACHE_SUFFIX = ".runtime-cache"
_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


class LoadedPlan:
    """A library engine with a single execution context; not thread-safe."""

    def __init__(
        self, api: Api, engine: Any, path: Path, manifest: Manifest, runtime: Any = None, size_bytes: int = 0
    ) -> None:
        """Create the execution context. ``runtime`` must outlive the engine, so it is kept."""
        self._size_bytes = size_bytes
        self._api = api
        self._runtime = runtime
        self._engine = engine
        self._input, *self._outputs = _checked_tensors(api, engine, manifest, path)
        self._cache = _RuntimeCache(api, engine, path) if api.is_rtx else None
        config = self._cache.config if self._cache is not None else None
        context = engine.create_execution_context(config) if config is not None else engine.create_execution_context()
        if context is None:
            raise BackendError(f"{api.library.title} has no memory to run {path}: {api.complaint()}")
        self._context = context

    @property
    def size_bytes(self) -> int:
        """Device memory in bytes allocated by deserialisation."""
        return self._size_bytes

    def bind(self, input_address: int, output_addresses: Sequence[int]) -> None:
        """Set the device addresses of images and of the manifest's outputs, in its order."""
        pairs = [(self._input, input_address), *zip(self._outputs, output_addresses, strict=True)]
        for name, address in pairs:
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"{self._api.library.title} refuses the memory of {name}: {self._api.complaint()}")

    def execute(self, stream: Any) -> None:
        """Enqueue one run on ``stream``. Raises :class:`BackendError` on failure."""
        if not self._context.execute_async_v3(int(stream.handle)):
            raise BackendError(f"{self._api.library.title} failed to run the engine: {self._api.complaint()}")

    def is_capturable(self, stream: Any) -> bool:
        """Whether a run can be captured into a CUDA graph; for TensorRT only an attempt tells."""
        return not self._api.is_rtx or bool(self._context.is_stream_capturable(int(stream.handle)))

    def keep_runtime_cache(self) -> None:
        """Save what TensorRT-RTX compiled for this GPU, to speed up the next start."""
        if self._cache is not None:
            self._cache.save()

    def layers(self) -> str:
        """The engine inspector's report as JSON: fused layers with their dtypes and tactics."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._api.module.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free the context, then the engine, then the runtime."""
        self._context = None
        self._cache = None
        self._engine = None
        self._runtime = None


def load_plan(api: Api, device: CudaDevice, opened: OpenedEngine) -> LoadedPlan:
    """Deserialise an opened plan.

    Raises :class:`IncompatibleEngineError` with the library's reason if it is rejected.
    """
    runtime = api.runtime()
    path, manifest = opened.path, opened.manifest
    if manifest.engine.options.get("version_compatible"):
        runtime.engine_host_code_allowed = True  # such plans embed a small runtime as executable code
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
    """Code compiled by TensorRT-RTX for a GPU, stored beside the engine, or in the user's cache if read-only."""

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
                # The library itself checks version, GPU and driver, and leaves the cache empty on a mismatch.
                if self._cache.deserialize(content):
                    self._stored = content
                    break
        self.config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the cache if it has changed. A failure is ignored; it only slows the next start."""
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
    """TensorRT-RTX's diagnostics of an invalid plan, such as ``"OLD_CUDA_DRIVER"``; empty if it has none."""
    if not api.is_rtx:
        return ""
    validity, bits = runtime.get_engine_validity(content)
    flags = api.module.EngineInvalidityDiagnostics
    named = [name for name in dir(flags) if name.isupper() and int(getattr(flags, name)) & int(bits)]
    return f"it is {validity.name.lower()} here ({', '.join(named) or 'no reason given'})"


def _checked_tensors(api: Api, engine: Any, manifest: Manifest, path: Path) -> list[str]:
    """Names of the input and the outputs, in the manifest's order.

    Raises :class:`IncompatibleEngineError` if they differ from the manifest.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = api.module.TensorIOMode
    stated: list[tuple[Any, InputSpec | OutputSpec]] = [(modes.INPUT, spec) for spec in manifest.inputs]
    stated += [(modes.OUTPUT, spec) for spec in manifest.outputs]
    found = [
        (engine.get_tensor_mode(name), name, _dtype(engine, name), tuple(engine.get_tensor_shape(name)))
        for name in names
    ]
    expected = [(mode, spec.name, spec.dtype, spec.shape) for mode, spec in stated]
    if sorted(found, key=lambda one: one[1]) != sorted(expected, key=lambda one: one[1]):  # in an order of its own
        have, states = ([one[1:] for one in tensors] for tensors in (found, expected))
        raise IncompatibleEngineError(f"{path} has the tensors {have}, but its manifest states {states}")
    return [spec.name for _, spec in stated]


def _dtype(engine: Any, name: str) -> str:
    dtype = str(engine.get_tensor_dtype(name).name)
    return _DTYPES.get(dtype, dtype)
