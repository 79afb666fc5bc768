"""OpenVINO: the graph compiled for this machine and kept as the library's own compiled-model blob.

The blob is what OpenVINO's model cache stores. It lies in the engine's folder, under the manifest's hash, instead of
in a cache folder, so that what is loaded is what was measured, and a read-only installation loads as fast as any other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.engines import openvino_attention as attention
from mvde.engines import openvino_linear as linear
from mvde.engines.base import (
    BuildOptions,
    Compiled,
    EngineInfo,
    Graph,
    Support,
    check_images,
    closed_error,
)
from mvde.engines.machine import cpu_features, cpu_name, has_hyper_threads, num_cpus
from mvde.errors import BackendError, IncompatibleEngineError, MissingDependencyError, UsageError
from mvde.manifest import EngineManifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BACKEND = "openvino"
LOWERED_PRECISIONS = ("int8",)  # it lowers the fp32 graph to the others itself
SUPPORTED_PRECISIONS = ("fp32", "bf16", "fp16", "int8")

ENGINE_FILE = "engine.blob"
_DEVICE = "CPU"
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_PRODUCTS = {
    "Convolution",
    "Deconvolution",
    "FullyConnected",
    "MatMul",
    "ScaledDotProductAttention",
}  # of its own graph
_COMPUTES = {"Subgraph", "MVN", "Eltwise", "Softmax", "Interpolate", "Reference"}  # Reference: mvde's attention
_PRECISION_BY_HINT = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
_FLOATS = ("f32", "bf16", "f16")


class OpenVinoEngine:
    """A compiled model as an :class:`~mvde.engines.base.Engine`; every thread that is inside has its own request."""

    def __init__(self, compiled: Any, info: EngineInfo) -> None:
        self._compiled = compiled
        self._blob = compiled.blob  # closing the engine must not take it from a call that is inside
        self._info = info
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    @property
    def info(self) -> EngineInfo:
        """What runs, and on what."""
        return self._info

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Depth (B, H, W), float32, of RGB images (B, H, W, 3), uint8; see :class:`~mvde.engines.base.Engine`."""
        import numpy as np

        check_images(images, self._info)
        request = self._take()
        try:
            # Copied in and out: the tensors belong to the request, which the next call reuses.
            request.infer([np.ascontiguousarray(images)], share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run {self._info.id}: {_one_line(error)}") from error
        finally:
            with self._lock:
                self._idle.append(request)

    def close(self) -> None:
        """Nothing; frees the compiled model and its requests."""
        with self._lock:
            self._idle.clear()
            self._compiled = None

    def _take(self) -> Any:
        with self._lock:
            if self._compiled is None:
                raise closed_error(self._info)
            if self._idle:
                return self._idle.pop()
            return self._compiled.create_infer_request()


def library_version() -> str:
    """Version of the installed OpenVINO. Raises :class:`MissingDependencyError` without one."""
    version: str = _library().__version__
    return version.split("-")[0]


def support(precision: str) -> Support:
    """Whether this machine's CPU computes in ``precision`` with OpenVINO; it would run fp32 in silence otherwise."""
    if precision not in SUPPORTED_PRECISIONS:
        return Support(
            False, f"no CPU computes {precision}; mvde builds {', '.join(SUPPORTED_PRECISIONS)} for openvino"
        )
    try:
        capabilities = shared_core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    except MissingDependencyError as error:
        return Support(False, str(error))
    if _CAPABILITIES[precision] in capabilities:
        return Support(True, f"computes in {precision}{_attention_note(precision)}")
    needs = {"bf16": "avx512_bf16 or amx_bf16", "fp16": "avx512_fp16, amx_fp16 or Arm fp16"}.get(precision, precision)
    return Support(
        False, f"{cpu_name()} has no {precision} arithmetic (it needs {needs}); OpenVINO would compute in fp32"
    )


def _attention_note(precision: str) -> str:
    """Which attention engines get, where mvde has one for this CPU."""
    if precision != "bf16" or "amx_bf16" not in cpu_features():
        return ""
    reason = attention.unavailable(library_version())
    return f", attention by OpenVINO: {reason}" if reason else ", attention by mvde's AMX kernel"


def tuning_settings(precision: str, chosen: BuildOptions) -> list[dict[str, Any]]:
    """Settings that are worth measuring on this machine, each alone: threads, their placement, how work is cut up, and
    whether attention is a generated kernel. Values are text, which OpenVINO takes from Python and from C++ alike."""
    cpus = num_cpus()
    settings: list[dict[str, Any]] = [
        {"TBB_PARTITIONER": "STATIC"},
        {"TBB_PARTITIONER": "AUTO"},
        {"ENABLE_CPU_PINNING": "NO"},
        {"CPU_DENORMALS_OPTIMIZATION": "YES"},
        {"SNIPPETS_MODE": "DISABLE"},
        {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1"},
    ]
    if chosen.num_threads is None:
        settings += [{"INFERENCE_NUM_THREADS": str(count)} for count in sorted({max(cpus // 2, 1), cpus})]
    if precision == "bf16":
        other = {linear.CONVOLUTIONS: linear.PRODUCTS, linear.PRODUCTS: linear.CONVOLUTIONS}
        settings.append({linear.OPTION: other[linear.default(precision)]})
    if attention.is_default(_options(precision, chosen), library_version()):
        settings.append({attention.OPTION: attention.LIBRARYS})
    if precision == "int8" and chosen.rest is None:  # what is not quantised: whatever wins is proved at the end
        others = [rest for rest in ("fp32", "bf16", "fp16") if rest != rest_of_int8() and support(rest).works]
        settings += [{"INFERENCE_PRECISION_HINT": _HINTS[rest]} for rest in others]
    if has_hyper_threads():
        settings += [{"ENABLE_HYPER_THREADING": answer} for answer in ("YES", "NO")]
    return settings


def compile_graph(graph: Graph, folder: Path, precision: str, chosen: BuildOptions) -> Compiled:
    """The engine written to ``folder`` as OpenVINO's blob, with the precision that the compiled model states.

    Raises :class:`BackendError` where the library cannot compile the graph or computes in another precision.
    """
    if chosen.provider is not None:
        raise UsageError(f"--provider is for onnxruntime engines, but this is openvino:{precision}")
    try:
        compiled, options, rewrites = compile_model(graph.path, precision, chosen)
        executed = _executed_precision(compiled)
        (folder / ENGINE_FILE).write_bytes(compiled.export_model().getvalue())
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile {graph.path}: {_one_line(error)}") from error
    main, *others = executed.split("+")
    if precision not in (main, *(others if precision == "int8" else ())):  # of an int8 graph much may have to stay
        raise BackendError(
            f"OpenVINO was asked for {precision} and computes in {executed} on this CPU; "
            f"build openvino:{main} if that is what you want"
        )
    return Compiled((ENGINE_FILE,), executed, cpu_name(), options, rewrites)


def compile_model(path: Path, precision: str, chosen: BuildOptions) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """The library's compiled model of a graph with mvde's operators in it, the options it needs, and what was done.

    Raises :class:`RuntimeError` where the library cannot compile it.
    """
    options = {**_options(precision, chosen), **chosen.library}
    layers = options.pop(linear.OPTION, linear.default(precision))
    model = shared_core().read_model(str(path))
    options, rewrites = attention.applied(shared_core(), model, options, library_version())
    if layers == linear.CONVOLUTIONS:  # last: attention is recognised between linear layers as the graph has them
        rewrites[linear.OPTION] = f"{linear.to_convolutions(model)} as 1×1 convolutions"
    return shared_core().compile_model(model, _DEVICE, attention.library_options(options)), options, rewrites


def load(path: Path, manifest: EngineManifest) -> OpenVinoEngine:
    """The engine at ``path``, which :func:`mvde.engines.store.load_engine` has checked against this machine."""
    record = manifest.engine
    attention.require(shared_core(), record, library_version(), path)
    compiled = _import(path, record.options)
    executed = _executed_precision(compiled)
    if executed != record.executed_precision:
        raise IncompatibleEngineError(
            f"{path} was built to compute in {record.executed_precision}, but computes in {executed} here; "
            f"build it again: mvde build --engine {record.id}"
        )
    info = EngineInfo(
        id=record.id,
        backend=BACKEND,
        precision=record.precision,
        executed_precision=executed,
        device=cpu_name(),
        resolution=manifest.resolution,
        batch=manifest.batch,
        library_version=library_version(),
        options=dict(record.options),
    )
    return OpenVinoEngine(compiled, info)


def _import(path: Path, options: Mapping[str, Any]) -> Any:
    """Compiled model that reads its weights from a memory map of the blob, so that they are not held twice.

    The map is its ``blob``, which has to live as long as it does, and is private to the process instead of read-only,
    since OpenVINO shares no array that cannot be written: base would take twice the time to load, and 385 MiB more.
    """
    import numpy as np

    try:
        blob = np.memmap(path, dtype=np.uint8, mode="c")
        tensor = _library().Tensor(blob, shared_memory=True)
        compiled = shared_core().import_model(tensor, _DEVICE, attention.library_options(options))
        compiled.blob = blob
        return compiled
    except (OSError, ValueError, RuntimeError) as error:
        raise IncompatibleEngineError(
            f"OpenVINO cannot load {path}: {_one_line(error)}; build it again with `mvde build`"
        ) from error


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError.for_extra("openvino", "openvino", "an openvino engine") from error
    return openvino


@lru_cache(maxsize=1)
def shared_core() -> Any:
    """The one ``openvino.Core`` of this process, which is never destroyed.

    Each one made for the CPU puts a signal stack of its own in the place of the thread's, and puts the former back at
    its end; two that end in another order than the reverse leave the thread an unmapped one, and the next signal kills
    the process.
    """
    return _library().Core()


def rest_of_int8() -> str:
    """What the nodes of an int8 graph that are not quantised compute in on this machine, unless a build says otherwise.

    bf16 where the CPU has it: attention and what lies between products take two thirds of such a frame in fp32.
    """
    return "bf16" if support("bf16").works else "fp32"


def _options(precision: str, chosen: BuildOptions) -> dict[str, Any]:
    floats = (chosen.rest or rest_of_int8()) if precision == "int8" else precision
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[floats]}
    if chosen.num_threads is not None:
        options["INFERENCE_NUM_THREADS"] = chosen.num_threads
    return options


def _executed_precision(compiled: Any) -> str:
    """What the compiled model computes in by its executed graph, such as ``"bf16"`` or ``"int8+bf16"``.

    Precisions of its products, the most frequent first, and at the end what most other nodes compute in, if that is
    another one; attention is among those where the library generates a kernel for it. The hint is asked only where
    there is no product: it stays what it was where the library runs a layer in another precision.
    """
    products: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        about = node.get_rt_info()
        name = about["runtimePrecision"].astype(str)
        if about["layerType"].astype(str) in _PRODUCTS:
            products[name] += 1
        elif about["layerType"].astype(str) in _COMPUTES and name in _FLOATS:
            others[name] += 1
    if not products:
        name = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        return _PRECISION_BY_HINT.get(name, str(name))
    ordered = [name for name, _ in (*products.most_common(), *others.most_common(1))]
    return "+".join(dict.fromkeys(_PRECISION_BY_HINT.get(name, name) for name in ordered))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
