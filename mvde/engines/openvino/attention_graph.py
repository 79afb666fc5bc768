"""Attentions of OpenVINO graphs that mvde's operator computes, and their replacement by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mvde.engines.openvino.operators import operator_factory, register

if TYPE_CHECKING:
    from mvde.engines.openvino.attention import Kernel

_MAX_DEPTH = 128  # per head; kMaxDepth of cpp/backends/openvino/attention_shape.hpp


class Case(NamedTuple):
    """Unmasked attention over (batch, tokens, heads, depth); ``scale`` is that of the scores."""

    shape: tuple[int, int, int, int]
    scale: float


class Found(NamedTuple):
    """An attention between transposes that move the heads to the front and back.

    ``split`` are queries, keys and values before them, ``joined`` is the result after them.
    """

    case: Case
    node: Any
    split: list[Any]
    joined: Any


def attentions(model: Any) -> list[Any]:
    """All attention operators of a model."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"]


def replaceable(model: Any) -> list[Found]:
    """The attentions of a model that mvde's operator computes."""
    return [found for node in attentions(model) if (found := _found(node)) is not None]


def replace_attention(core: Any, model: Any, kernel: Kernel) -> tuple[int, int]:
    """Replace attention operators of an OpenVINO model by ``kernel``; return the numbers replaced and found.

    The operator works on the untransposed layout, so the transposes around it are removed.
    """
    register(core)
    number, ours = len(attentions(model)), replaceable(model)
    for found in ours:
        _replace(found, kernel)
    model.validate_nodes_and_infer_types()
    return len(ours), number


def _found(node: Any) -> Found | None:
    """What to replace; ``None`` for an attention that the operator does not compute."""
    split = [_heads_behind(node.input_value(index)) for index in range(3)]
    joined, scale = _only_reader(node), _scale(node)
    if scale is None or joined is None or not _swaps_heads(joined) or any(one is None for one in split):
        return None
    shape = joined.output(0).get_partial_shape()
    if shape.is_dynamic or shape[3].get_length() > _MAX_DEPTH or any(one.get_partial_shape() != shape for one in split):
        return None
    batch, tokens, heads, depth = (size.get_length() for size in shape)
    return Found(Case((batch, tokens, heads, depth), scale), node, split, joined)


def _replace(found: Found, kernel: Kernel) -> None:
    import openvino.opset13 as operators

    is_narrow = kernel.hint != "f32"
    typed = [operators.convert(one, kernel.hint).output(0) for one in found.split] if is_narrow else found.split
    attributes = {"scale": found.case.scale, "kernel": kernel.name}
    ours = operator_factory().create("Attention", typed, attributes)
    ours.set_friendly_name(found.node.get_friendly_name())
    result = (operators.convert(ours, "f32") if is_narrow else ours).output(0)
    for reader in list(found.joined.output(0).get_target_inputs()):
        reader.replace_source_output(result)


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
