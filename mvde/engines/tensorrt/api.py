"""Common interface to TensorRT 10, TensorRT 11 and TensorRT-RTX; all their differences are here.

:data:`USED` lists the names that the package uses; a test compares it with the bindings of TensorRT 10.3, 10.16 and
11.4 as recorded from NVIDIA's wheels, and with the installed library.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from mvde.errors import BackendError, MissingDependencyError

# Class → names used. Names that only TensorRT-RTX has are in `USED_BY_RTX` and guarded by `is_rtx`.
USED = {
    "Builder": ("create_network", "create_builder_config", "build_serialized_network"),
    "BuilderFlag": ("TF32", "VERSION_COMPATIBLE", "DISABLE_TIMING_CACHE"),
    "HardwareCompatibilityLevel": ("NONE", "AMPERE_PLUS"),
    "IBuilderConfig": (
        "builder_optimization_level", "clear_flag", "create_timing_cache", "get_timing_cache",
        "hardware_compatibility_level", "max_aux_streams", "profiling_verbosity", "progress_monitor", "set_flag",
        "set_memory_pool_limit", "set_timing_cache",
    ),
    "ICudaEngine": (
        "create_engine_inspector", "create_execution_context", "get_tensor_dtype", "get_tensor_mode",
        "get_tensor_name", "get_tensor_shape", "num_io_tensors",
    ),
    "EngineInspector": ("get_engine_information",),
    "IExecutionContext": ("execute_async_v3", "set_tensor_address"),
    "ILayer": ("get_input", "get_output", "metadata", "name", "num_inputs", "num_outputs", "type"),
    "ILogger": ("Severity", "WARNING", "log"),
    "INetworkDefinition": ("get_input", "get_layer", "get_output", "num_inputs", "num_layers", "num_outputs"),
    "IProgressMonitor": ("phase_start", "phase_finish", "step_complete"),
    "ITensor": ("dtype", "name", "shape"),
    "ITimingCache": ("serialize",),
    "LayerInformationFormat": ("JSON",),
    "LayerType": (
        "CAST", "CONSTANT", "CONVOLUTION", "DECONVOLUTION", "DEQUANTIZE", "IDENTITY", "MATRIX_MULTIPLY",
        "NORMALIZATION", "QUANTIZE", "RESIZE", "SHAPE", "SHUFFLE", "SOFTMAX",
    ),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "OnnxParser": ("get_error", "num_errors", "parse_from_file"),
    "ParserError": ("desc", "node", "node_name", "node_operator"),
    "ProfilingVerbosity": ("DETAILED",),
    "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
}  # fmt: skip
USED_BY_RTX = {
    "BuilderFlag": ("REQUIRE_USER_ALLOCATION",),
    "ComputeCapability": ("SM75", "SM80", "SM86", "SM89", "SM120"),
    "EngineInvalidityDiagnostics": (),
    "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),
    "ICudaEngine": ("create_runtime_config",),
    "IExecutionContext": ("is_stream_capturable",),
    "IRuntimeCache": ("deserialize", "serialize"),
    "IRuntimeConfig": ("create_runtime_cache", "set_runtime_cache"),
    "Runtime": ("get_engine_validity",),
}


@dataclass(frozen=True)
class Library:
    """An installable library: import name ``module``, pip extra ``extra``."""

    backend: str
    module: str
    extra: str
    title: str


LIBRARIES = {
    "tensorrt": Library("tensorrt", "tensorrt", "tensorrt", "TensorRT"),
    "tensorrt-rtx": Library("tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx", "TensorRT-RTX"),
}
_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 2)}
_NEWEST_MAJOR = {"tensorrt": 11, "tensorrt-rtx": 1}


class Api:
    """An imported library. ``messages`` collects its log at warning level or above, newest last."""

    def __init__(self, library: Library, module: Any) -> None:
        self.library = library
        self.module = module
        self.messages: list[str] = []
        self.logger = _logger(module, self.messages)

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX."""
        return self.library.backend == "tensorrt-rtx"

    @property
    def version(self) -> str:
        """Numeric version, such as ``"10.3.0"``, as the C++ library reports it, without ``.post1``."""
        return ".".join(map(str, version_of(str(self.module.__version__))))

    def builder(self) -> Any:
        """Create a builder. Raises :class:`BackendError` if the library cannot start (TensorRT needs a GPU)."""
        builder = self._create(self.module.Builder)
        if builder is None:
            raise BackendError(f"{self.library.title} {self.version} cannot build here: {self.complaint()}")
        return builder

    def runtime(self) -> Any:
        """Create a runtime for loading plans. Raises :class:`BackendError` if the library cannot start."""
        runtime = self._create(self.module.Runtime)
        if runtime is None:
            raise BackendError(f"{self.library.title} {self.version} cannot run here: {self.complaint()}")
        return runtime

    def empty_network(self, builder: Any) -> Any:
        """Create a strongly typed network: a flag in TensorRT 10, the only kind in TensorRT 11 and TensorRT-RTX."""
        if self.is_rtx or version_of(self.version)[0] >= 11:
            return builder.create_network(0)
        return builder.create_network(1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def capability_value(self, text: str) -> Any:
        """Enumerator of a compute capability (``"8.9"``). Raises :class:`BackendError` listing the supported ones."""
        wanted = getattr(self.module.ComputeCapability, f"SM{text.replace('.', '')}", None)
        if wanted is None:
            raise BackendError(
                f"{self.library.title} {self.version} does not build for compute capability {text}; "
                f"it builds for {', '.join(self.capabilities())}"
            )
        return wanted

    def capabilities(self) -> list[str]:
        """Compute capabilities that TensorRT-RTX builds for, such as ``["7.5", "8.9"]``, in ascending order."""
        names = [name[2:] for name in dir(self.module.ComputeCapability) if name[:2] == "SM" and name[2:].isdigit()]
        return [f"{number // 10}.{number % 10}" for number in sorted(map(int, names))]

    def complaint(self) -> str:
        """The library's last log messages on one line, as the reason for a failure."""
        return " ".join(" ".join(self.messages[-3:]).split())[:600] or "it gave no reason"

    def _create(self, kind: Any) -> Any:
        """Construct a library object; ``None`` if its constructor fails (pybind11 raises TypeError then)."""
        try:
            return kind(self.logger)
        except (TypeError, RuntimeError) as error:
            self.messages.append(str(error))
            return None


def check_installed(backend: str) -> None:
    """Raise :class:`MissingDependencyError` unless the library is installed. Avoids the import, which takes 1 s."""
    library = LIBRARIES[backend]
    if importlib.util.find_spec(library.module) is None:
        raise MissingDependencyError.for_extra(library.module, library.extra, f"a {backend} engine")


def load_api(backend: str) -> Api:
    """Import the library of a backend.

    Raises :class:`MissingDependencyError` if it is not installed, :class:`BackendError` for an unsupported version.
    """
    library = LIBRARIES[backend]
    try:
        module = importlib.import_module(library.module)
    except ImportError as error:
        raise MissingDependencyError.for_extra(library.module, library.extra, f"a {backend} engine") from error
    except Exception as error:  # a wheel without its shared libraries raises loader errors
        raise BackendError(
            f"{library.title} is installed but cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    api = Api(library, module)
    found = version_of(api.version)
    if found[:2] < _OLDEST[backend] or found[0] > _NEWEST_MAJOR[backend]:
        oldest = ".".join(map(str, _OLDEST[backend]))
        raise BackendError(
            f"{library.title} {api.version} is installed, but mvde supports {oldest} to "
            f"{_NEWEST_MAJOR[backend]}.x: pip install 'mvde[{library.extra}]'"
        )
    return api


def oldest_version(backend: str) -> tuple[int, ...]:
    """Oldest version of a backend's library that mvde supports: (10, 3) for ``"tensorrt"``."""
    return _OLDEST[backend]


def version_of(text: str) -> tuple[int, ...]:
    """Numeric parts of a version: (10, 3, 0) for ``"10.3.0"``; suffixes (``.post1``) are dropped."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _logger(module: Any, messages: list[str]) -> Any:
    """Logger that collects warnings and errors instead of printing them."""
    worst = int(module.ILogger.Severity.WARNING)

    class Collector(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= worst:
                messages.append(message)
                del messages[:-20]

    return Collector()
