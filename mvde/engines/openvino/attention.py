"""Custom attention operator for OpenVINO graphs: availability and graph rewriting.

The operator is in ``libmvde_openvino.so``, which is compiled against one version of OpenVINO and installed beside
libmvde. Its bfloat16 AMX kernel is twice as fast as the library's own attention, its float32 AVX2 kernel 1.5 times.
Engines compiled with one of them record that in their options and are rejected where it is missing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvde.engines.isa import cap, onednn_features
from mvde.engines.openvino.native_backend import MISSING, library_path, mismatch
from mvde.engines.openvino.operators import operator_factory, register
from mvde.errors import BackendError, IncompatibleEngineError
from mvde.precision import Precision
from mvde.records import EngineRecord


@dataclass(frozen=True)
class Kernel:
    """A kernel of mvde's, for engines whose floats compute in ``hint``."""

    name: str
    title: str
    hint: str
    reason_symbol: str
    """Function of the library that returns why the kernel cannot run, or an empty string."""


OPTION = "MVDE_ATTENTION"
"""Engine option: the name of a kernel or :data:`LIBRARYS`. Not passed to the library."""
AMX = Kernel("amx", "mvde's AMX kernel", "bf16", "mvde_attention_unavailable")
AVX2 = Kernel("avx2", "mvde's AVX2 kernel", "f32", "mvde_attention_avx2_unavailable")
KERNELS = {kernel.name: kernel for kernel in (AMX, AVX2)}
LIBRARYS = "openvino"
LIBRARYS_TITLE = "OpenVINO's"

_MAX_DEPTH = 128  # per head; kMaxDepth of cpp/backends/openvino/attention_shape.hpp


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
    if precision.is_quantized or kernel is None or not _is_worth_naming(kernel):
        return ""
    reason = unavailable(kernel, library_version())
    return f", attention by OpenVINO: {reason}" if reason else f", attention by {kernel.title}"


def default_kernel(options: Mapping[str, Any], version: str) -> Kernel | None:
    """The kernel of mvde's that engines with these options use by default; None for the library's attention."""
    kernel = _kernel_for(options.get("INFERENCE_PRECISION_HINT"))
    if kernel is None or not _is_measured(kernel) or _capped(kernel) or unavailable(kernel, version):
        return None
    return kernel


def alternative(options: Mapping[str, Any], version: str) -> str | None:
    """Name of the attention for tuning to try against the default: the library's, or a kernel that can run; or None."""
    kernel = _kernel_for(options.get("INFERENCE_PRECISION_HINT"))
    if kernel is None or unavailable(kernel, version) or _capped(kernel):
        return None
    return LIBRARYS if default_kernel(options, version) else kernel.name


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
    if kernel is None or not (asked or _is_measured(kernel)):
        return options, {}
    reason = _refusal(kernel, options, version) or ("" if asked else _capped(kernel))
    if reason and asked:
        raise BackendError(f"{kernel.title} for attention was requested but cannot run here: {reason}")
    replaced, found = (0, 0) if reason else replace_attention(core, model, kernel)
    if not (replaced or found or reason or asked):
        return options, {}
    if not replaced:
        reason = reason or f"none of the graph's {found} attentions is one that mvde's kernel computes"
        return {**options, OPTION: LIBRARYS}, {"attention": f"{LIBRARYS_TITLE}; {reason}"}
    return {**options, OPTION: kernel.name}, {"attention": f"{kernel.title}, {replaced} of {found}"}


def _kernel_for(hint: Any) -> Kernel | None:
    return next((kernel for kernel in KERNELS.values() if kernel.hint == hint), None)


def _refusal(kernel: Kernel, options: Mapping[str, Any], version: str) -> str:
    """Why ``kernel`` cannot run in an engine with these options; empty if it can."""
    if options.get("INFERENCE_PRECISION_HINT") != kernel.hint:
        precision = {"bf16": "bf16", "f32": "fp32"}[kernel.hint]
        return f"the kernel computes in {precision}, and this engine does not"
    return unavailable(kernel, version)


def _is_measured(kernel: Kernel) -> bool:
    """Whether ``kernel`` was measured as the faster with the instructions that oneDNN uses.

    The AVX2 kernel where the library has no AVX-512 either; the AMX kernel wherever it can run.
    """
    features = onednn_features()
    return kernel is AMX or ("avx2" in features and not any(one.startswith("avx512") for one in features))


def _is_worth_naming(kernel: Kernel) -> bool:
    return _is_measured(kernel) and (kernel is not AMX or "amx_bf16" in onednn_features())


def _capped(kernel: Kernel) -> str:
    """Why ``kernel`` is not the default under the user's cap of instructions; empty without such a cap."""
    switched_off = kernel is AMX and cap() and "amx_bf16" not in onednn_features()
    return f"{cap()} switches AMX off" if switched_off else ""


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


def replace_attention(core: Any, model: Any, kernel: Kernel) -> tuple[int, int]:
    """Replace attention operators of an OpenVINO model by ``kernel``; return the numbers replaced and found.

    Replaces unmasked attention between transposes that move the heads to the front and back; the operator works on the
    untransposed layout, so the transposes are removed.
    """
    register(core)
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    replaced = sum(_replace(operator_factory(), node, kernel) for node in found)
    model.validate_nodes_and_infer_types()
    return replaced, len(found)


def _replace(factory: Any, node: Any, kernel: Kernel) -> bool:
    import openvino.opset13 as operators

    split = [_heads_behind(node.input_value(index)) for index in range(3)]
    joined, scale = _only_reader(node), _scale(node)
    if scale is None or joined is None or not _swaps_heads(joined) or any(one is None for one in split):
        return False
    shape = joined.output(0).get_partial_shape()
    if shape.is_dynamic or shape[3].get_length() > _MAX_DEPTH or any(one.get_partial_shape() != shape for one in split):
        return False
    typed = [operators.convert(one, kernel.hint).output(0) for one in split] if kernel is AMX else split
    ours = factory.create("Attention", typed, {"scale": scale})
    ours.set_friendly_name(node.get_friendly_name())
    result = (operators.convert(ours, "f32") if kernel is AMX else ours).output(0)
    for reader in list(joined.output(0).get_target_inputs()):
        reader.replace_source_output(result)
    return True


def _heads_behind(value: Any) -> Any:
    """The (batch, tokens, heads, depth) input of the transpose to (batch, heads, tokens, depth); None without one."""
    node = value.get_node()
    return node.input_value(0) if _swaps_heads(node) else None


def _swaps_heads(node: Any) -> bool:
    return node.get_type_name() == "Transpose" and _numbers(node.input_value(1)) == [0, 2, 1, 3]


def _scale(node: Any) -> float | None:
    """Scale of the scores; None for masked attention, causal or not."""
    if node.get_attributes()["causal"]:
        return None
    if node.get_input_size() > 3 and _numbers(node.input_value(3)) != [0]:
        return None
    if node.get_input_size() < 5:
        return float(node.output(0).get_partial_shape()[3].get_length() ** -0.5)
    scale = _numbers(node.input_value(4))
    return float(scale[0]) if scale is not None and len(scale) == 1 else None


def _only_reader(node: Any) -> Any:
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 else None


def _numbers(value: Any) -> list[Any] | None:
    """Values of a constant, looking through type conversions; None if it is not a constant."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "ConvertLike"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    numbers: list[Any] = node.get_data().ravel().tolist()
    return numbers
