"""Fold rules for attention.

Joint query, key and value products; the score scale folded into the query weights; masks that hide nothing removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvde.export.graph.edit import (
    add_initializer,
    add_node,
    constant,
    is_constant,
    is_op,
    replace,
    set_constant,
    sole_reader,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def join_products(model: ir.Model) -> int:
    """Join products of the same value into one product and a Split; return the number of groups joined.

    ``x [W₁ W₂ W₃] + [b₁ b₂ b₃] = [x W₁ + b₁, x W₂ + b₂, x W₃ + b₃]``: columns of a product are independent. One large
    product reads x once and has better utilisation than three small ones.
    """
    graph = model.graph
    done, count = set(), 0
    for node in list(graph):
        value = node.inputs[0] if _is_linear(node) else None
        if value is None or value in done:
            continue
        done.add(value)
        group = [use.node for use in value.uses() if use.idx == 0 and _is_linear(use.node)]
        if len(group) > 1 and len({static_shape(one.inputs[1])[0] for one in group}) == 1:  # type: ignore[index]
            _join(graph, value, group)
            count += 1
    return count


def _is_linear(node: ir.Node) -> bool:
    """Whether a node is a product with a constant matrix, followed by the addition of a constant bias row."""
    if not is_op(node, "MatMul") or not is_constant(node.inputs[1]) or static_shape(node.outputs[0]) is None:
        return False
    columns = static_shape(node.inputs[1])
    follower = sole_reader(node.outputs[0])
    if columns is None or len(columns) != 2 or follower is None or not is_op(follower, "Add"):
        return False
    bias = follower.inputs[_bias_index(node)]
    return is_constant(bias) and static_shape(bias) == columns[1:]


def _bias_index(product: ir.Node) -> int:
    follower = sole_reader(product.outputs[0])
    return 1 if follower is not None and follower.inputs[0] is product.outputs[0] else 0


def _join(graph: ir.Graph, value: ir.Value, group: list[ir.Node]) -> None:
    sums = [sole_reader(node.outputs[0]) for node in group]
    weights = [constant(node.inputs[1]) for node in group]
    biases = [constant(one.inputs[_bias_index(node)]) for node, one in zip(group, sums, strict=True)]  # type: ignore[union-attr]
    dtype = group[0].inputs[1].dtype.numpy()  # type: ignore[union-attr]
    sizes = [weight.shape[1] for weight in weights]
    rows = (static_shape(group[0].outputs[0]) or ())[:-1]
    stem = group[0].inputs[1].name  # type: ignore[union-attr]
    weight = add_initializer(graph, f"{stem}.joined", np.concatenate(weights, axis=1).astype(dtype))
    bias = add_initializer(graph, f"{stem}.joined.bias", np.concatenate(biases).astype(dtype))
    split = add_initializer(graph, f"{stem}.joined.sizes", np.asarray(sizes, np.int64))
    first = group[0]
    (product,) = add_node(first, "MatMul", [value, weight], [(*rows, sum(sizes))])
    (total,) = add_node(first, "Add", [product, bias], [(*rows, sum(sizes))])
    parts = add_node(first, "Split", [total, split], [(*rows, size) for size in sizes], {"axis": -1})
    for one, part in zip(sums, parts, strict=True):
        replace(one.outputs[0], part)  # type: ignore[union-attr]


def fold_scale_into_query(model: ir.Model) -> int:
    """Fold the attention scale s into the query weights; return the number of attentions changed.

    ``softmax(s · (x W + b) Kᵀ) = softmax((x (s W) + s b) Kᵀ)`` for any s. Reshape and Transpose nodes on the query path
    only move elements and are allowed.
    """
    return sum(_fold_scale(node) for node in list(model.graph) if is_op(node, "Attention"))


def _fold_scale(attention: ir.Node) -> bool:
    import onnx_ir as ir

    query = attention.inputs[0]
    shape = static_shape(query)
    given = attention.attributes.get("scale")
    if query is None or shape is None or len(shape) != 4:
        return False
    scale = given.as_float() if given is not None else shape[-1] ** -0.5
    adder = _origin(query)
    if scale == 1.0 or adder is None or not is_op(adder, "Add"):
        return False
    index = 1 if is_constant(adder.inputs[1]) else 0
    total = adder.inputs[1 - index]
    product = total.producer() if total is not None and sole_reader(total) is adder else None
    if product is None or not _is_linear(product):
        return False
    set_constant(product, 1, constant(product.inputs[1]) * scale)
    set_constant(adder, index, constant(adder.inputs[index]) * scale)
    attention.attributes["scale"] = ir.AttrFloat32("scale", 1.0)
    return True


def _origin(value: ir.Value) -> ir.Node | None:
    """Node that computes a value, looking through Reshape and Transpose; ``None`` if any step has other readers."""
    node = value.producer()
    while node is not None and is_op(node, "Reshape", "Transpose"):
        source = node.inputs[0]
        if source is None or sole_reader(source) is not node:
            return None
        node = source.producer()
    return node if node is not None and sole_reader(node.outputs[0]) is not None else None


def drop_open_masks(model: ir.Model) -> int:
    """Remove masks of attentions that hide nothing; return the number removed.

    A mask of true everywhere, or the addition of zero, changes no score. Exporters write such masks (transformers' DINO
    does), and kernels without masks, the faster ones of every library, are ruled out by them.
    """
    removed = 0
    for node in list(model.graph):
        if is_op(node, "Attention") and len(node.inputs) > 3 and _hides_nothing(node.inputs[3]):
            node.replace_input_with(3, None)
            if not any(value is not None for value in node.inputs[3:]):
                node.resize_inputs(3)
            removed += 1
    return removed


def _hides_nothing(mask: ir.Value | None) -> bool:
    """Whether a mask is a constant, or an expanded one, of true or of zero everywhere."""
    node = mask.producer() if mask is not None else None
    if is_op(node, "Expand"):
        mask = node.inputs[0]  # type: ignore[union-attr]
    if mask is None or mask.const_value is None:
        return False
    values = mask.const_value.numpy()
    return bool(values.all()) if values.dtype == np.bool_ else not values.any()
