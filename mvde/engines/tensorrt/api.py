"""The two libraries behind one face: every difference of TensorRT 10, TensorRT 11 and TensorRT-RTX is here.

What the rest of the package calls is listed in :data:`USED`; a test compares that list with the bindings of TensorRT
10.3, 10.16 and 11.4 as recorded from NVIDIA's wheels, and with whichever library is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from mvde.errors import BackendError, MissingDependencyError

# Class → what is called of it; what TensorRT-RTX alone has is in `USED_BY_RTX` and used behind `is_rtx`.
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
    """A library as users install it: ``module`` is imported, ``extra`` installs it."""

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
    """An imported library. ``warnings`` collects what it logged at warning level or above, newest last."""

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
        """Version in numbers, such as ``"10.3.0"``: what the C++ library says, too, which knows no ``.post1``."""
        return ".".join(map(str, version_of(str(self.module.__version__))))

    def builder(self) -> Any:
        """A builder. Raises :class:`BackendError` where the library cannot start (TensorRT needs a GPU to build)."""
        builder = self._create(self.module.Builder)
        if builder is None:
            raise BackendError(f"{self.library.title} {self.version} cannot build here: {self.complaint()}")
        return builder

    def runtime(self) -> Any:
        """A runtime, which loads plans. Raises :class:`BackendError` where the library cannot start."""
        runtime = self._create(self.module.Runtime)
        if runtime is None:
            raise BackendError(f"{self.library.title} {self.version} cannot run here: {self.complaint()}")
        return runtime

    def empty_network(self, builder: Any) -> Any:
        """A strongly typed network: by a flag in TensorRT 10; TensorRT 11 and TensorRT-RTX know no other."""
        if self.is_rtx or version_of(self.version)[0] >= 11:
            return builder.create_network(0)
        return builder.create_network(1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))

    def capability_value(self, text: str) -> Any:
        """The enumerator of a compute capability (``"8.9"``). Raises :class:`BackendError` listing what there is."""
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
        """What the library last logged, on one line: the reason of what just failed."""
        return " ".join(" ".join(self.messages[-3:]).split())[:600] or "it gave no reason"

    def _create(self, kind: Any) -> Any:
        """An object of the library, or ``None`` where its constructor gives up (pybind11 raises TypeError then)."""
        try:
            return kind(self.logger)
        except (TypeError, RuntimeError) as error:
            self.messages.append(str(error))
            return None


def check_installed(backend: str) -> None:
    """Raise :class:`MissingDependencyError` unless the library is installed; importing it would take a second."""
    library = LIBRARIES[backend]
    if importlib.util.find_spec(library.module) is None:
        raise MissingDependencyError.for_extra(library.module, library.extra, f"a {backend} engine")


def load_api(backend: str) -> Api:
    """The library of a backend, imported.

    Raises :class:`MissingDependencyError` where it is not installed, :class:`BackendError` for a version that mvde does
    not know how to call.
    """
    library = LIBRARIES[backend]
    try:
        module = importlib.import_module(library.module)
    except ImportError as error:
        raise MissingDependencyError.for_extra(library.module, library.extra, f"a {backend} engine") from error
    except Exception as error:  # a wheel without its libraries raises what its loader raises
        raise BackendError(
            f"{library.title} is installed but cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    api = Api(library, module)
    found = version_of(api.version)
    if found[:2] < _OLDEST[backend] or found[0] > _NEWEST_MAJOR[backend]:
        oldest = ".".join(map(str, _OLDEST[backend]))
        raise BackendError(
            f"{library.title} {api.version} is installed, but mvde is written for {oldest} to "
            f"{_NEWEST_MAJOR[backend]}.x: pip install 'mvde[{library.extra}]'"
        )
    return api


def version_of(text: str) -> tuple[int, ...]:
    """Numbers of a version: (10, 3, 0) for ``"10.3.0"``; what follows the numbers (``.post1``) is dropped."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _logger(module: Any, messages: list[str]) -> Any:
    """A logger that keeps warnings and errors instead of printing them."""
    worst = int(module.ILogger.Severity.WARNING)

    class Collector(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= worst:
                messages.append(message)
                del messages[:-20]

    return Collector()
