"""The installed OpenVINO: shared core, supported arithmetic on this CPU, and its precision names."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

from mvde.engines.base import Support
from mvde.engines.isa import cap, narrow_note, onednn_features
from mvde.engines.machine import cpu_features, cpu_name
from mvde.engines.process import ProcessGuard
from mvde.errors import MissingDependencyError
from mvde.precision import Precision

DEVICE = "CPU"
SUPPORTED = tuple(precision for precision in Precision if precision is not Precision.FP8)

_PRODUCTS = {  # names in OpenVINO's executed graph
    "Convolution",
    "Deconvolution",
    "FullyConnected",
    "MatMul",
    "ScaledDotProductAttention",
}
_COMPUTES = {"Subgraph", "MVN", "Eltwise", "Softmax", "Interpolate", "Reference"}  # Reference: mvde's attention
_PRECISION_BY_NAME = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
_TELEMETRY, _ABSENT = "openvino_telemetry", cast(ModuleType, object())
_importing = threading.Lock()
_FEATURES = {Precision.BF16: ("avx512_bf16", "amx_bf16"), Precision.FP16: ("avx512_fp16", "amx_fp16")}
"""Features of x86 CPUs that compute in a precision, any of which will do."""
_FLOATS = ("f32", "bf16", "f16")


def openvino_library() -> Any:
    """Import ``openvino``. Raises :class:`MissingDependencyError` if it is not installed.

    All of mvde must call this before importing any part of OpenVINO.
    """
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise MissingDependencyError.for_extra("openvino", "openvino", "an openvino engine") from error
    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Disable OpenVINO's telemetry while it is imported; otherwise it reports from a child process.

    It treats a missing answer as consent, writes files in HOME, and has no switch other than recording an answer on the
    user's behalf. If its telemetry package is not installed it uses a no-op stand-in, so the package's name is hidden
    during the import.
    """
    if "openvino" in sys.modules:
        yield
        return
    with _importing:
        hidden = sys.modules.get(_TELEMETRY, _ABSENT)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes importing it an ImportError
        try:
            yield
        finally:
            if hidden is _ABSENT:
                del sys.modules[_TELEMETRY]
            else:
                sys.modules[_TELEMETRY] = hidden


class _SharedCore:
    """The library's core and the guard of the process that owns its threads."""

    def __init__(self) -> None:
        self.core: Any = openvino_library().Core()
        self.process = ProcessGuard(self, "OpenVINO")


_only_core = lru_cache(maxsize=1)(_SharedCore)


def shared_core() -> Any:
    """The process's single ``openvino.Core``, which is never destroyed.

    Raises :class:`BackendError` in a fork of the process that created it.

    Each core for the CPU replaces the thread's signal stack and restores the previous one when destroyed. Two cores
    destroyed in any order but the reverse leave the thread with an unmapped stack, and the next signal kills the
    process.
    """
    only = _only_core()
    only.process.check("the library of openvino engines")
    return only.core


def library_version() -> str:
    """Version of the installed OpenVINO. Raises :class:`MissingDependencyError` without one."""
    version: str = openvino_library().__version__
    return version.split("-")[0]


def arithmetic(precision: Precision) -> Support:
    """Whether OpenVINO computes in ``precision`` on this CPU; it would otherwise silently use fp32."""
    if precision not in SUPPORTED:
        return Support(False, f"no CPU computes {precision}; mvde builds {', '.join(SUPPORTED)} for openvino")
    try:
        capabilities = shared_core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    except MissingDependencyError as error:
        return Support(False, str(error))
    if precision.name in capabilities:
        return _below_the_cap(precision)
    return Support(
        False,
        f"{cpu_name()} has no {precision} arithmetic (it needs {_needs(precision)}); OpenVINO would compute in fp32",
    )


def _below_the_cap(precision: Precision) -> Support:
    """Support for a precision of this CPU: not if the user's cap switches off all features that compute it."""
    computing = set(_FEATURES.get(precision, ())) & set(cpu_features())
    if computing and not computing & set(onednn_features()):
        return Support(
            False,
            f"{cap()} switches off {' and '.join(sorted(computing))}, without which OpenVINO has no {precision} "
            "arithmetic; unset it",
        )
    return Support(True, f"computes in {precision}{narrow_note(precision, onednn_features())}")


def hint_of(precision: Precision) -> str:
    """Inference precision hint for a graph in ``precision``, under the library's names.

    Products between Q/DQ nodes always compute in 8 bits; the hint applies to everything else.
    """
    match precision:
        case Precision.BF16:
            return "bf16"
        case Precision.FP16:
            return "f16"
        case Precision.FP32 | Precision.INT8 | Precision.FP8:
            return "f32"


def executed_precision(compiled: Any) -> str:
    """Precision of a compiled model by its executed graph, such as ``"bf16"`` or ``"int8+bf16"``.

    Precisions of the products, most frequent first, followed by that of most other nodes if different; attention counts
    as one of those if the library generates a kernel for it. The hint is used only if there are no products, since it
    does not change if the library runs a layer in another precision.
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
        return _PRECISION_BY_NAME.get(name, str(name))
    ordered = [name for name, _ in (*products.most_common(), *others.most_common(1))]
    return "+".join(dict.fromkeys(_PRECISION_BY_NAME.get(name, name) for name in ordered))


def _needs(precision: Precision) -> str:
    match precision:
        case Precision.BF16:
            return "avx512_bf16 or amx_bf16"
        case Precision.FP16:
            return "avx512_fp16, amx_fp16 or Arm fp16"
        case Precision.FP32 | Precision.INT8 | Precision.FP8:
            return str(precision)
