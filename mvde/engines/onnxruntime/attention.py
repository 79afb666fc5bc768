"""Forms of attention in a graph for ONNX Runtime's CPU provider, and their rewriting.

Besides the standard operator ``Attention`` (opset 23) and the matrix products and Softmax that it stands for, the
library has its own operator ``MultiHeadAttention``, which blocks the scores for the cache and reads queries, keys and
values where the linear layers leave them. ``attention_choice`` measures which is fastest.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

LIBRARY_DOMAIN = "com.microsoft"


class Form(str, Enum):
    """How an attention is written: the library's fused operator, products and Softmax, or the standard operator."""

    FUSED = "fused"
    PRODUCTS = "products"
    OPERATOR = "operator"


DEFAULT = Form.FUSED

NAMES = {
    Form.FUSED: "ONNX Runtime's MultiHeadAttention",
    Form.PRODUCTS: "products and Softmax",
    Form.OPERATOR: "the standard operator",
}
_FALLBACKS = {
    Form.FUSED: (Form.FUSED, Form.PRODUCTS),
    Form.PRODUCTS: (Form.PRODUCTS,),
    Form.OPERATOR: (),
}
"""Forms to try in order; an attention that fits none of them stays the standard operator."""


def rewrite(model: ir.Model, form: Form) -> dict[Form, int]:
    """Write the attentions of ``model`` in ``form`` or the next best one, in place; return how many are in which."""
    written: Counter[Form] = Counter()
    for node in [node for node in model.graph if node.op_type == "Attention" and not node.domain]:
        written[next((one for one in _FALLBACKS[form] if _WRITERS[one](model, node)), Form.OPERATOR)] += 1
    return dict(written)


def rewritable(node: ir.Node) -> tuple[int, int, int, int] | None:
    """Shape (batch, heads, tokens, depth) of an attention that has other forms; ``None`` for every other node."""
    is_attention = node.op_type == "Attention" and not node.domain and _is_plain(node)
    return _shape(node.inputs[0]) if is_attention else None


def description(written: dict[Form, int]) -> str:
    """What the manifest says, such as ``"ONNX Runtime's MultiHeadAttention, 6 of 6"``; empty without attention."""
    total = sum(written.values())
    return "; ".join(f"{NAMES[form]}, {written[form]} of {total}" for form in Form if written.get(form))


def _write_fused(model: ir.Model, node: ir.Node) -> bool:
    """Replace an unmasked attention between splits and the joining of heads by the library's operator."""
    import onnx_ir as ir

    joined = _joined(node)
    inputs = [_tokens_behind(value) for value in node.inputs[:3]]
    query = _shape(node.inputs[0])
    if not _is_plain(node) or query is None or joined is None or not all(inputs):
        return False
    attributes = {"num_heads": query[1], "scale": _scale(node)}
    fused = ir.node("MultiHeadAttention", inputs, attributes, domain=LIBRARY_DOMAIN, name=f"{node.name}.fused")
    fused.outputs[0].type, fused.outputs[0].shape = joined.type, joined.shape
    _replace(model, node, joined, [fused])
    model.graph.opset_imports[LIBRARY_DOMAIN] = 1
    return True


def _write_products(model: ir.Model, node: ir.Node) -> bool:
    """Replace an unmasked attention over (batch, heads, tokens, depth) by two products and a Softmax."""
    import numpy as np
    import onnx_ir as ir

    shapes = [_shape(value) for value in node.inputs[:3]]
    if not _is_plain(node) or any(shape is None or shape[1] != (shapes[0] or shape)[1] for shape in shapes):
        return False
    query, key, value = node.inputs[:3]
    assert query is not None
    assert query.dtype is not None
    name, scale = str(node.name), np.asarray(_scale(node), query.dtype.numpy())
    factor = ir.Value(name=f"{name}.scale", const_value=ir.tensor(scale, name=f"{name}.scale"))
    factor.type, factor.shape = ir.TensorType(query.dtype), ir.Shape(())
    model.graph.register_initializer(factor)
    scaled = ir.node("Mul", [query, factor], name=f"{name}.scaled")
    turned = ir.node("Transpose", [key], {"perm": [0, 1, 3, 2]}, name=f"{name}.keys")
    scores = ir.node("MatMul", [scaled.outputs[0], turned.outputs[0]], name=f"{name}.scores")
    weights = ir.node("Softmax", [scores.outputs[0]], {"axis": -1}, name=f"{name}.weights")
    result = ir.node("MatMul", [weights.outputs[0], value], name=f"{name}.result")
    old = node.outputs[0]
    result.outputs[0].type, result.outputs[0].shape = old.type, old.shape
    _replace(model, node, old, [scaled, turned, scores, weights, result])
    return True


_WRITERS = {Form.FUSED: _write_fused, Form.PRODUCTS: _write_products}


def _replace(model: ir.Model, node: ir.Node, old: ir.Value, new: list[ir.Node]) -> None:
    """Insert ``new`` before ``node`` and hand the readers of ``old`` to the last one's output; unused nodes stay."""
    model.graph.insert_before(node, new)
    old.replace_all_uses_with(new[-1].outputs[0], replace_graph_outputs=True)


def _is_plain(node: ir.Node) -> bool:
    """Whether an attention has neither mask, cache, cap nor further outputs, and computes in one dtype."""
    attributes = node.attributes
    return (
        not any(value is not None for value in node.inputs[3:])
        and not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        and ("is_causal" not in attributes or attributes["is_causal"].as_int() == 0)
        and ("softcap" not in attributes or attributes["softcap"].as_float() == 0)
        and "softmax_precision" not in attributes
    )


def _scale(node: ir.Node) -> float:
    """Factor of the scores: the attribute, or 1 / √depth."""
    if "scale" in node.attributes:
        return node.attributes["scale"].as_float()
    shape = _shape(node.inputs[0])
    assert shape is not None
    return float(shape[3] ** -0.5)


def _tokens_behind(value: ir.Value | None) -> ir.Value | None:
    """The (batch, tokens, heads · depth) value whose heads a Reshape and a Transpose split; ``None`` without them."""
    split = _swapped(value)
    reshape = split.producer() if split is not None else None
    if reshape is None or reshape.op_type != "Reshape" or reshape.domain:
        return None
    tokens, wanted = reshape.inputs[0], _shape(value)
    if tokens is None or wanted is None or tokens.shape is None or not tokens.shape.is_static():
        return None
    batch, heads, num_tokens, depth = wanted
    return tokens if tuple(tokens.shape.numpy()) == (batch, num_tokens, heads * depth) else None


def _joined(node: ir.Node) -> ir.Value | None:
    """The (batch, tokens, heads · depth) result after a Transpose and a Reshape that read nothing else."""
    value = node.outputs[0]
    for op_type in ("Transpose", "Reshape"):
        uses = value.uses()
        if len(uses) != 1 or value.is_graph_output():
            return None
        reader = next(iter(uses)).node
        if reader.op_type != op_type or reader.domain or (op_type == "Transpose" and not _swaps_heads(reader)):
            return None
        value = reader.outputs[0]
    shape, tokens = _shape(node.outputs[0]), value.shape
    if shape is None or tokens is None or not tokens.is_static():
        return None
    batch, heads, num_tokens, depth = shape
    return value if tuple(tokens.numpy()) == (batch, num_tokens, heads * depth) else None


def _swapped(value: ir.Value | None) -> ir.Value | None:
    """Input of the transpose that swaps tokens and heads; ``None`` if the value is no such transpose."""
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and _swaps_heads(node) else None


def _swaps_heads(node: ir.Node) -> bool:
    is_transpose = node.op_type == "Transpose" and not node.domain and "perm" in node.attributes
    return is_transpose and list(node.attributes["perm"].as_ints()) == [0, 2, 1, 3]


def _shape(value: ir.Value | None) -> tuple[int, int, int, int] | None:
    """Static shape (batch, heads, tokens, depth) of a value; ``None`` if it has another rank or is not known."""
    shape = value.shape if value is not None else None
    if shape is None or not shape.is_static() or len(shape) != 4:
        return None
    batch, heads, tokens, depth = shape.numpy()
    return batch, heads, tokens, depth
