"""Fold the scale and shift of LayerNormalization into the products that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvde.export.graph.edit import (
    add_constant_after,
    add_initializer,
    constant,
    has_constant_operands,
    is_constant,
    is_op,
    number,
    optional_input,
    set_constant,
    sole_reader,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray


def fold_norm_into_products(model: ir.Model) -> int:
    """Fold LayerNormalization scale γ and shift β into the following products; return the number of nodes folded.

    ``(γ ⊙ x̂ + β) W + b = x̂ (diag(γ) W) + (b + β W)``, where x̂ is the normalised row. It requires every reader to be
    a product with constant weights. The node stays, with unit scale, to compute the statistics.
    """
    graph = model.graph
    return sum(_fold(graph, node) for node in list(graph) if is_op(node, "LayerNormalization") and _is_affine(node))


def _is_affine(node: ir.Node) -> bool:
    """Whether the node normalises the last axis with a constant scale and shift that are not the identity."""
    shape = static_shape(node.inputs[0])
    if shape is None or not has_constant_operands(node) or number(node, "axis", -1) not in (-1, len(shape) - 1):
        return False
    return optional_input(node, 2) is not None or bool(np.any(constant(node.inputs[1]) != 1.0))


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    output = norm.outputs[0]
    readers = [use.node for use in output.uses()]
    if not readers or output.is_graph_output() or not all(_is_product_of(node, output) for node in readers):
        return False
    scale = constant(norm.inputs[1])
    shift = optional_input(norm, 2)
    for product in readers:
        weight = constant(product.inputs[1])
        if shift is not None:
            _add_bias(product, constant(shift) @ weight)
        set_constant(product, 1, weight * scale[:, None])
    dtype = norm.inputs[1].dtype.numpy()  # type: ignore[union-attr]
    norm.replace_input_with(1, add_initializer(graph, "normalized.scale", np.ones(scale.shape, dtype)))
    norm.resize_inputs(2)
    return True


def _is_product_of(node: ir.Node, value: ir.Value) -> bool:
    weight = node.inputs[1] if is_op(node, "MatMul") else None
    shape = static_shape(weight)
    return node.inputs[0] is value and weight is not value and is_constant(weight) and len(shape or ()) == 2


def _add_bias(product: ir.Node, bias: NDArray[np.float64]) -> None:
    """Add to the bias that follows a product, or insert one."""
    output = product.outputs[0]
    follower = sole_reader(output)
    if follower is not None and is_op(follower, "Add"):
        index = 1 if follower.inputs[0] is output else 0
        if is_constant(follower.inputs[index]) and static_shape(follower.inputs[index]) == bias.shape:
            set_constant(follower, index, constant(follower.inputs[index]) + bias)
            return
    add_constant_after(product, bias, "shift")
