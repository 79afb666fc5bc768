"""The installed OpenVINO: its one core, what this CPU computes in with it, and how it calls the precisions."""

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
from mvde.engines.machine import cpu_name
from mvde.engines.process import ProcessGuard
from mvde.errors import MissingDependencyError
from mvde.precision import Precision

DEVICE = "CPU"
SUPPORTED = tuple(precision for precision in Precision if precision is not Precision.FP8)

_PRODUCTS = {  # of its own graph
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
_FLOATS = ("f32", "bf16", "f16")


def openvino_library() -> Any:
    """The module ``openvino``. Raises :class:`MissingDependencyError` without one.

    Everything of mvde that needs it asks here before it imports a part of it.
    """
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise MissingDependencyError.for_extra("openvino", "openvino", "an openvino engine") from error
    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Import of OpenVINO that reports nothing: without this, it does so in a process of its own.

    It takes a missing answer for consent, writes files in HOME, and knows no switch that mvde could set without writing
    such an answer for the user. Where its package for reporting is not installed, it has a stand-in that does nothing:
    the name is hidden while OpenVINO is imported, so that the stand-in is what it finds.
    """
    if "openvino" in sys.modules:
        yield
        return
    with _importing:
        hidden = sys.modules.get(_TELEMETRY, _ABSENT)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # which makes an import of it an ImportError
        try:
            yield
        finally:
            if hidden is _ABSENT:
                del sys.modules[_TELEMETRY]
            else:
                sys.modules[_TELEMETRY] = hidden


class _SharedCore:
    """The library's core, and the process whose threads it uses."""

    def __init__(self) -> None:
        self.core: Any = openvino_library().Core()
        self.process = ProcessGuard(self, "OpenVINO")


_only_core = lru_cache(maxsize=1)(_SharedCore)


def shared_core() -> Any:
    """The one ``openvino.Core`` of this process, which is never destroyed.

    Raises :class:`BackendError` in a fork of the process that made it.

    Each one made for the CPU puts a signal stack of its own in the place of the thread's, and puts the former back at
    its end; two that end in another order than the reverse leave the thread an unmapped one, and the next signal kills
    the process.
    """
    only = _only_core()
    only.process.check("the library of openvino engines")
    return only.core


def library_version() -> str:
    """Version of the installed OpenVINO. Raises :class:`MissingDependencyError` without one."""
    version: str = openvino_library().__version__
    return version.split("-")[0]


def arithmetic(precision: Precision) -> Support:
    """Whether this machine's CPU computes in ``precision`` with OpenVINO; it would run fp32 in silence otherwise."""
    if precision not in SUPPORTED:
        return Support(False, f"no CPU computes {precision}; mvde builds {', '.join(SUPPORTED)} for openvino")
    try:
        capabilities = shared_core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    except MissingDependencyError as error:
        return Support(False, str(error))
    if precision.name in capabilities:
        return Support(True, f"computes in {precision}")
    return Support(
        False,
        f"{cpu_name()} has no {precision} arithmetic (it needs {_needs(precision)}); OpenVINO would compute in fp32",
    )


def hint_of(precision: Precision) -> str:
    """The inference precision that a graph in ``precision`` is compiled with, in the library's words.

    Products between Q/DQ nodes compute in 8 bits whatever it says; what is around them then stays fp32.
    """
    match precision:
        case Precision.BF16:
            return "bf16"
        case Precision.FP16:
            return "f16"
        case Precision.FP32 | Precision.INT8 | Precision.FP8:
            return "f32"


def executed_precision(compiled: Any) -> str:
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
