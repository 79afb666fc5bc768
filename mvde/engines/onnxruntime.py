"""ONNX Runtime: runs a typed ONNX file as it is, on the CPU or a GPU where the installed package has the provider."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines.base import (
    BuildOptions,
    Compiled,
    EngineInfo,
    Graph,
    Support,
    check_images,
    closed_error,
)
from mvde.engines.machine import cpu_name, num_cpus
from mvde.engines.onnxruntime_gpu import check_nothing_strayed, provider_options
from mvde.errors import BackendError, IncompatibleEngineError, MissingDependencyError, UsageError
from mvde.manifest import EngineManifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BACKEND = "onnxruntime"
LOWERED_PRECISIONS = ("fp16", "int8")  # those that need the graph itself in that precision
SUPPORTED_PRECISIONS = ("fp32", "fp16", "int8")

ENGINE_FILE = "engine.onnx"
_PROVIDERS = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
_PRODUCTS = {"Conv", "MatMul", "Gemm", "Attention", "FusedMatMul", "FusedConv", "FusedGemm", "MultiHeadAttention"}
_PRODUCTS |= {"MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "QLinearConv", "QGemm", "ConvInteger"}
_DTYPE_NAMES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}


class OnnxRuntimeEngine:
    """An ONNX Runtime session as an :class:`~mvde.engines.base.Engine`; ``run`` is thread-safe."""

    def __init__(self, session: Any, info: EngineInfo) -> None:
        self._session = session
        self._info = info
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    @property
    def info(self) -> EngineInfo:
        """What runs, and on what."""
        return self._info

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth (B, H, W), float32, of RGB images (B, H, W, 3), uint8; see :class:`~mvde.engines.base.Engine`."""
        session = self._session
        if session is None:
            raise closed_error(self._info)
        check_images(images, self._info)
        try:
            depth: NDArray[np.float32] = session.run([self._output], {self._input: images})[0]
        except Exception as error:  # the library's exceptions share no public base class
            raise BackendError(f"ONNX Runtime failed to run {self._info.id}: {_one_line(error)}") from error
        return depth

    def close(self) -> None:
        """Nothing; frees the session."""
        self._session = None


def library_version() -> str:
    """Version of the installed ONNX Runtime. Raises :class:`MissingDependencyError` without one."""
    version: str = _library().__version__
    return version


def support(precision: str) -> Support:
    """Whether this machine executes the ``precision`` graph with ONNX Runtime."""
    if precision not in SUPPORTED_PRECISIONS:
        kernels = f"ONNX Runtime has no products in {precision}"
        return Support(False, f"{kernels}; mvde builds {', '.join(SUPPORTED_PRECISIONS)} for onnxruntime")
    try:
        provider = default_provider()
    except MissingDependencyError as error:
        return Support(False, str(error))
    if precision == "fp16" and provider == "cpu":
        return Support(True, "runs the fp16 graph; the CPU provider computes most products in fp32")
    return Support(True, f"{provider} provider")


def default_provider() -> str:
    """``"cuda"`` where the installed package has that provider and a GPU answers, else ``"cpu"``."""
    from mvde.engines.machine import nvidia_gpus

    has_cuda = _PROVIDERS["cuda"] in _library().get_available_providers()
    return "cuda" if has_cuda and nvidia_gpus() else "cpu"


def tuning_settings(precision: str, chosen: BuildOptions) -> list[dict[str, Any]]:
    """Settings that are worth measuring on this machine, each alone: threads, waiting, memory and graph rewrites."""
    if (chosen.provider or default_provider()) != "cpu":
        raise UsageError("--tune is for engines on the CPU; leave it out, or add --provider cpu")
    settings: list[dict[str, Any]] = [
        {"allow_spinning": "0"},
        {"optimization": "extended"},
        {"optimization": "basic"},
        {"mem_pattern": "0"},
    ]
    if chosen.num_threads is None:
        cpus = num_cpus()
        settings += [{"num_threads": count} for count in sorted({max(cpus // 2, 1), cpus})]
    return settings


def compile_graph(graph: Graph, folder: Path, precision: str, chosen: BuildOptions) -> Compiled:
    """The engine written to ``folder``: the graph itself, with what a profiled run of it says it computes in."""
    provider = chosen.provider or default_provider()
    if _PROVIDERS.get(provider) not in _library().get_available_providers():
        raise UsageError(
            f"the installed ONNX Runtime has no {provider!r} provider; it has {', '.join(_available()) or 'none'} "
            "(GPU providers come with 'mvde[onnxruntime-gpu]')"
        )
    target = folder / ENGINE_FILE
    shutil.copyfile(graph.path, target)
    for companion in graph.companions:  # under the names that the graph uses; a lowered graph's are there already
        if companion.parent != folder:
            shutil.copyfile(companion, folder / companion.name)
    options = {**_options(provider, chosen.num_threads), **chosen.library}
    with tempfile.TemporaryDirectory() as scratch:
        session = _open(target, options, precision, profile_prefix=str(Path(scratch) / "profile"))
        _run_zeros(session)
        profile = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    check_nothing_strayed(profile, _PROVIDERS[provider], _PRODUCTS)
    # TensorRT's provider runs the whole graph as one node, which tells no dtypes; the typed graph's are allowed there.
    executed = precision if provider == "tensorrt" else executed_precision(profile)
    names = (ENGINE_FILE, *(companion.name for companion in graph.companions))
    return Compiled(names, executed, _device(provider), options)


def load(path: Path, manifest: EngineManifest) -> OnnxRuntimeEngine:
    """The engine at ``path``, which :func:`mvde.engines.store.load_engine` has checked against this machine."""
    record = manifest.engine
    provider = str(record.options.get("provider", "cpu"))
    if _PROVIDERS.get(provider) not in _library().get_available_providers():
        raise IncompatibleEngineError(
            f"{path} was built for ONNX Runtime's {provider} provider, which the installed package lacks; "
            f"install 'mvde[onnxruntime-gpu]' or build it again: mvde build --engine {record.id}"
        )
    session = _open(path, record.options, record.precision)
    info = EngineInfo(
        id=record.id,
        backend=BACKEND,
        precision=record.precision,
        executed_precision=record.executed_precision,
        device=record.device,
        resolution=manifest.resolution,
        batch=manifest.batch,
        library_version=library_version(),
        options=dict(record.options),
    )
    return OnnxRuntimeEngine(session, info)


def open_onnx(path: str | Path, num_threads: int | None = None) -> OnnxRuntimeEngine:
    """An exported fp32 graph run as it lies, on the CPU: the reference that engines and exports are compared with.

    Raises :class:`BackendError` where ONNX Runtime cannot read the file.
    """
    session = _open(Path(path), _options("cpu", num_threads))
    batch, height, width, _ = session.get_inputs()[0].shape
    info = EngineInfo(
        id=f"{BACKEND}:fp32",
        backend=BACKEND,
        precision="fp32",
        executed_precision="fp32",
        device=cpu_name(),
        resolution=(height, width),
        batch=batch,
        library_version=library_version(),
    )
    return OnnxRuntimeEngine(session, info)


def executed_precision(profile: list[dict[str, Any]]) -> str:
    """``"fp32"``, ``"fp16"`` or ``"fp32+fp16"``: what a profile's products (matrix, convolution, attention) ran in.

    The profile is ONNX Runtime's own; inserted casts mean that an fp16 graph may compute in fp32.
    """
    time_us: dict[str, int] = {}
    for event in profile:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and arguments.get("op_name") in _PRODUCTS and arguments.get("input_type_shape"):
            dtype = next(iter(arguments["input_type_shape"][0]))
            name = _DTYPE_NAMES.get(dtype, dtype)
            time_us[name] = time_us.get(name, 0) + int(event["dur"])
    return "+".join(sorted(time_us, key=lambda name: -time_us[name])) or "fp32"


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError.for_extra("onnxruntime", "onnxruntime", "an onnxruntime engine") from error
    return onnxruntime


def _options(provider: str, num_threads: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"provider": provider}
    if num_threads is not None:
        options["num_threads"] = num_threads
    return options


def _open(path: Path, options: Mapping[str, Any], precision: str = "fp32", profile_prefix: str | None = None) -> Any:
    library = _library()
    settings = library.SessionOptions()
    settings.log_severity_level = 3  # errors only: its warnings about unused initialisers are not the user's
    # Otherwise it turns int8 Q/DQ pairs into uint8 ones on x86, and refuses those itself from opset 21 on (1.32).
    settings.add_session_config_entry("session.qdqisint8allowed", "1")
    if "num_threads" in options:
        settings.intra_op_num_threads = int(options["num_threads"])
    _apply(library, settings, options)
    if profile_prefix is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile_prefix
    provider = _PROVIDERS[str(options["provider"])]
    given = provider_options(str(options["provider"]), precision, path, library.__version__)
    try:
        session = library.InferenceSession(str(path), settings, providers=[(provider, given)])
    except Exception as error:  # the library's exceptions share no public base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {_one_line(error)}") from error
    running: list[str] = session.get_providers()
    if running[:1] != [provider]:  # the library itself falls back to the CPU with no more than a warning
        raise BackendError(
            f"ONNX Runtime could not start {provider} for {path}; it offers {', '.join(running)} instead"
        )
    return session


def _apply(library: Any, settings: Any, options: Mapping[str, Any]) -> None:
    """Nothing; the settings that tuning may have chosen. Without them the library's own choices stand."""
    if "allow_spinning" in options:
        settings.add_session_config_entry("session.intra_op.allow_spinning", str(options["allow_spinning"]))
    if "mem_pattern" in options:
        settings.enable_mem_pattern = str(options["mem_pattern"]) != "0"
    if "optimization" in options:
        level = f"ORT_ENABLE_{str(options['optimization']).upper()}"
        settings.graph_optimization_level = getattr(library.GraphOptimizationLevel, level)


def _run_zeros(session: Any) -> None:
    import numpy as np

    node = session.get_inputs()[0]
    session.run(None, {node.name: np.zeros(node.shape, np.uint8)})


def _available() -> list[str]:
    """Short names of the providers that the installed package has."""
    there = _library().get_available_providers()
    return [name for name, provider in _PROVIDERS.items() if provider in there]


def _device(provider: str) -> str:
    from mvde.engines.machine import nvidia_gpus

    return cpu_name() if provider == "cpu" else nvidia_gpus()[0].split(",")[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
