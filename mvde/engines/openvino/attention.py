"""Custom attention operator for OpenVINO graphs: availability and graph rewriting.

The operator is in ``libmvde_openvino.so``, which is compiled against one version of OpenVINO and installed beside
libmvde. Its bfloat16 AMX kernel is twice as fast as the library's own attention. Engines compiled with it record that
in their options and are rejected where it is missing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mvde.engines.isa import cap, onednn_features
from mvde.engines.openvino.native_backend import MISSING, library_path, mismatch
from mvde.errors import BackendError, IncompatibleEngineError
from mvde.precision import Precision
from mvde.records import EngineRecord

OPTION = "MVDE_ATTENTION"
"""Engine option: :data:`OURS` or :data:`LIBRARYS`. Not passed to the library."""
OURS, LIBRARYS = "amx", "openvino"
NAMES = {OURS: "mvde's AMX kernel", LIBRARYS: "OpenVINO's"}

_MAX_DEPTH = 128  # per head; kMaxDepth of cpp/backends/openvino/attention_amx.hpp


def unavailable(version: str) -> str:
    """Reason why mvde's attention cannot run here with OpenVINO ``version`` ("2026.4.1"); empty if it can."""
    path = library_path()
    if path is None:
        return MISSING
    if reason := mismatch(path, version):
        return reason
    try:
        why_not = ctypes.CDLL(str(path)).mvde_attention_unavailable
    except (OSError, AttributeError) as error:
        return f"{path} cannot be used: {error}"
    why_not.restype = ctypes.c_char_p
    return str(why_not().decode())


def support_note(precision: Precision) -> str:
    """Which attention ``precision`` engines use if mvde has a kernel for this CPU; otherwise empty."""
    from mvde.engines.openvino.library import library_version

    if precision is not Precision.BF16 or "amx_bf16" not in onednn_features():
        return ""
    reason = unavailable(library_version())
    return f", attention by OpenVINO: {reason}" if reason else ", attention by mvde's AMX kernel"


def is_default(options: Mapping[str, Any], version: str) -> bool:
    """Whether mvde's attention is used by default: if floats compute in bf16 and the kernel can run."""
    return _in_bf16(options) and not unavailable(version) and not _capped()


def applied(core: Any, model: Any, options: dict[str, Any], version: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Apply the selected attention to ``model``; return the resulting options and rewrites for the manifest.

    Raises :class:`BackendError` for an unknown name, or if mvde's attention was requested and cannot run.
    """
    asked = options.get(OPTION)
    if asked not in (None, OURS, LIBRARYS):
        raise BackendError(f"{OPTION} is {asked!r}: expected {OURS} or {LIBRARYS}")
    if asked == LIBRARYS:
        return options, {"attention": NAMES[LIBRARYS]}
    if asked is None and not _in_bf16(options):
        return options, {}
    reason = "the kernel computes in bf16, and this engine does not"
    if _in_bf16(options):
        reason = unavailable(version) or ("" if asked == OURS else _capped())
    if reason and asked == OURS:
        raise BackendError(f"mvde's attention was requested but cannot run here: {reason}")
    replaced, found = (0, 0) if reason else replace_attention(core, model)
    if not replaced:
        reason = reason or f"none of the graph's {found} attentions is one that mvde's kernel computes"
        return {**options, OPTION: LIBRARYS}, {"attention": f"{NAMES[LIBRARYS]}; {reason}"}
    return {**options, OPTION: OURS}, {"attention": f"{NAMES[OURS]}, {replaced} of {found}"}


def _capped() -> str:
    """Why the kernel is not the default under the user's cap of instructions; empty without such a cap."""
    return f"{cap()} switches AMX off" if cap() and "amx_bf16" not in onednn_features() else ""


def library_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options to pass to the library."""
    return {key: value for key, value in options.items() if key != OPTION}


def require(core: Any, engine: EngineRecord, version: str, where: Path) -> None:
    """Register the operator with ``core`` if the engine at ``where`` was compiled with it.

    Raises :class:`IncompatibleEngineError` if it cannot run.
    """
    if engine.options.get(OPTION, LIBRARYS) == LIBRARYS:
        return
    if reason := unavailable(version):
        raise IncompatibleEngineError(
            f"{where} was compiled with mvde's attention, which cannot run here: {reason}; or build the engine again "
            f"with OpenVINO's own: mvde build --engine {engine.id}"
        )
    _register(core, str(library_path()))


def replace_attention(core: Any, model: Any) -> tuple[int, int]:
    """Replace attention operators of an OpenVINO model; return the numbers replaced and found.

    Replaces unmasked attention between transposes that move the heads to the front and back; the operator works on the
    untransposed layout, so the transposes are removed.
    """
    path = str(library_path())
    _register(core, path)
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    replaced = sum(_replace(_factory(path), node) for node in found)
    model.validate_nodes_and_infer_types()
    return replaced, len(found)


@lru_cache(maxsize=1)
def _register(core: Any, path: str) -> None:
    try:
        core.add_extension(path)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot load mvde's attention from {path}: {error}") from error


@lru_cache(maxsize=1)
def _factory(path: str) -> Any:
    from openvino.utils.node_factory import NodeFactory

    factory = NodeFactory()
    factory.add_extension(path)
    return factory


def _in_bf16(options: Mapping[str, Any]) -> bool:
    return options.get("INFERENCE_PRECISION_HINT") == "bf16"


def _replace(factory: Any, node: Any) -> bool:
    import openvino.opset13 as operators

    split = [_heads_behind(node.input_value(index)) for index in range(3)]
    joined, scale = _only_reader(node), _scale(node)
    if scale is None or joined is None or not _swaps_heads(joined) or any(one is None for one in split):
        return False
    shape = joined.output(0).get_partial_shape()
    if shape.is_dynamic or shape[3].get_length() > _MAX_DEPTH or any(one.get_partial_shape() != shape for one in split):
        return False
    narrow = [operators.convert(one, "bf16") for one in split]
    ours = factory.create("Attention", [one.output(0) for one in narrow], {"scale": scale})
    ours.set_friendly_name(node.get_friendly_name())
    result = operators.convert(ours, "f32").output(0)
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
