"""Custom attention operator for OpenVINO graphs: its kernels, where each can run, and which one an engine gets.

The operator is in ``libmvde_openvino.so``, which is compiled against one version of OpenVINO and installed beside
libmvde. Its bfloat16 AMX kernel is twice as fast as the library's own attention, its float32 AVX2 kernel 1.5 times on
CPUs without AVX-512. On other CPUs, and for the AVX-512 kernel, which has run in emulation only, the build measures.
Engines compiled with a kernel record that in their options and are rejected where it is missing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvde.engines.isa import onednn_features
from mvde.engines.openvino import attention_choice
from mvde.engines.openvino.attention_graph import replace_attention
from mvde.engines.openvino.native_backend import MISSING, library_path, mismatch
from mvde.engines.openvino.operators import register
from mvde.errors import BackendError, IncompatibleEngineError
from mvde.precision import Precision
from mvde.records import EngineRecord


@dataclass(frozen=True)
class Kernel:
    """A kernel of mvde's, for engines whose floats compute in ``hint``."""

    name: str
    title: str
    hint: str
    feature: str
    """Instructions of :data:`mvde.engines.machine.FEATURES` that it is for."""
    reason_symbol: str
    """Function of the library that returns why the kernel cannot run, or an empty string."""
    rounding: float
    """Largest error of a number, relative to the mean of the values' magnitudes, weighted as they are."""


OPTION = "MVDE_ATTENTION"
"""Engine option: the name of a kernel or :data:`LIBRARYS`. Not passed to the library."""
_BF16 = 2 * 2**-8 + 2**-12  # the result and each weight are rounded to 8 bits: tests/cpp/test_attention.cpp
_FP32 = 2**-15  # scores of up to 150 are rounded to 24 bits, which is the relative error of their weights
AMX = Kernel("amx", "mvde's AMX kernel", "bf16", "amx_bf16", "mvde_attention_unavailable", _BF16)
AVX512 = Kernel("avx512", "mvde's AVX-512 kernel", "bf16", "avx512_bf16", "mvde_attention_avx512_unavailable", _BF16)
AVX2 = Kernel("avx2", "mvde's AVX2 kernel", "f32", "avx2", "mvde_attention_avx2_unavailable", _FP32)
KERNELS = {kernel.name: kernel for kernel in (AMX, AVX512, AVX2)}
"""By name; of those for one hint, the first whose instructions there are is the one to use."""
LIBRARYS = "openvino"
LIBRARYS_TITLE = "OpenVINO's"


def unavailable(kernel: Kernel, version: str) -> str:
    """Reason why ``kernel`` cannot run here with OpenVINO ``version`` ("2026.4.1"); empty if it can."""
    path = library_path()
    if path is None:
        return MISSING
    if reason := mismatch(path, version):
        return reason
    try:
        why_not = getattr(ctypes.CDLL(str(path)), kernel.reason_symbol)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be used: {error}"
    why_not.restype = ctypes.c_char_p
    return str(why_not().decode())


def support_note(precision: Precision) -> str:
    """Which attention ``precision`` engines use if mvde has a kernel for this CPU; otherwise empty."""
    from mvde.engines.openvino.library import hint_of, library_version

    kernel = _kernel_for(hint_of(precision))
    if precision.is_quantized or kernel is None:
        return ""
    if reason := unavailable(kernel, library_version()):
        return f", attention by OpenVINO: {reason}"
    measured = "" if _is_measured(kernel) else " or OpenVINO, as the build measures"
    return f", attention by {kernel.title}{measured}"


def alternatives(options: Mapping[str, Any], version: str) -> list[str]:
    """Names of the attentions for tuning to try: all but one that is the default without measuring."""
    kernel = _kernel_for(options.get("INFERENCE_PRECISION_HINT"))
    if kernel is None or unavailable(kernel, version):
        return []
    return [LIBRARYS] if _is_measured(kernel) else [LIBRARYS, kernel.name]


def applied(core: Any, model: Any, options: dict[str, Any], version: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Apply the selected attention to ``model``; return the resulting options and rewrites for the manifest.

    Raises :class:`BackendError` for an unknown name, or if mvde's attention was requested and cannot run.
    """
    asked = options.get(OPTION)
    if asked not in (None, *KERNELS, LIBRARYS):
        raise BackendError(f"{OPTION} is {asked!r}: expected {', '.join(KERNELS)} or {LIBRARYS}")
    if asked == LIBRARYS:
        return options, {"attention": LIBRARYS_TITLE}
    kernel = KERNELS[asked] if asked else _kernel_for(options.get("INFERENCE_PRECISION_HINT"))
    if kernel is None:
        return options, {}
    reason = _refusal(kernel, options, version)
    if reason and asked:
        raise BackendError(f"{kernel.title} for attention was requested but cannot run here: {reason}")
    note = ""
    if not (asked or reason or _is_measured(kernel)):
        is_ours, note = attention_choice.choose(core, model, kernel, options)
        if not is_ours:
            return {**options, OPTION: LIBRARYS}, {"attention": f"{LIBRARYS_TITLE}{note}"}
    replaced, found = (0, 0) if reason else replace_attention(core, model, kernel)
    if not (replaced or found or reason or asked):
        return options, {}
    if not replaced:
        reason = reason or f"none of the graph's {found} attentions is one that mvde's kernel computes"
        return {**options, OPTION: LIBRARYS}, {"attention": f"{LIBRARYS_TITLE}; {reason}"}
    return {**options, OPTION: kernel.name}, {"attention": f"{kernel.title}, {replaced} of {found}{note}"}


def _kernel_for(hint: Any) -> Kernel | None:
    """The kernel for engines whose floats compute in ``hint``, by the instructions that oneDNN uses."""
    features = onednn_features()
    return next((kernel for kernel in KERNELS.values() if kernel.hint == hint and kernel.feature in features), None)


def _refusal(kernel: Kernel, options: Mapping[str, Any], version: str) -> str:
    """Why ``kernel`` cannot run in an engine with these options; empty if it can."""
    if options.get("INFERENCE_PRECISION_HINT") != kernel.hint:
        precision = {"bf16": "bf16", "f32": "fp32"}[kernel.hint]
        return f"the kernel computes in {precision}, and this engine does not"
    return unavailable(kernel, version)


def _is_measured(kernel: Kernel) -> bool:
    """Whether ``kernel`` was measured as the faster with the instructions that oneDNN uses, so that builds need not.

    The AMX kernel, and the AVX2 kernel where the library has no AVX-512 either.
    """
    has_avx512 = any(feature.startswith("avx512") for feature in onednn_features())
    return kernel is AMX or (kernel is AVX2 and not has_avx512)


def require(core: Any, engine: EngineRecord, version: str, where: Path) -> None:
    """Register the operator with ``core`` if the engine at ``where`` was compiled with it.

    Raises :class:`IncompatibleEngineError` if it cannot run.
    """
    kernel = KERNELS.get(engine.options.get(OPTION, LIBRARYS))
    if kernel is None:
        return
    if reason := unavailable(kernel, version):
        raise IncompatibleEngineError(
            f"{where} was compiled with mvde's attention, which cannot run here: {reason}; or build the engine again "
            f"with OpenVINO's own: mvde build --engine {engine.id}"
        )
    register(core)
