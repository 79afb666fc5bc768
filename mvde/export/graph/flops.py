"""Arithmetic cost of a graph: multiply-adds of its products, from static shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from mvde.errors import BackendError
from mvde.export.graph.edit import is_constant, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir


def count_flops(model: ir.Model) -> int:
    """Floating-point operations of one run of the graph (its whole batch); a multiply-add counts as two.

    Convolutions, matrix products and attention (both products) are counted; the rest (activations, normalisation,
    resizing) is about 1 % of a vision transformer's arithmetic. Quantised products count the same.

    Raises :class:`BackendError` if a required shape is not static.
    """
    products = [node for node in model.graph.all_nodes() if _is_product(node)]
    if any(_lacks_shapes(node) for node in products):
        from onnx_ir.passes.common import ShapeInferencePass

        ShapeInferencePass()(model)
    return sum(2 * _multiply_adds(node) for node in products)


def count_weight_multiply_adds(model: ir.Model) -> int:
    """Multiply-adds with constant weights in one run of the graph (its whole batch); limits the number of images.

    Attention, whose operands are both computed, and products with unknown shapes are excluded.
    """
    products = [node for node in model.graph if _is_product(node) and is_constant(node.inputs[1])]
    return sum(_multiply_adds(node) for node in products if not _lacks_shapes(node))


def _is_product(node: ir.Node) -> bool:
    return node.op_type in _COUNTERS and not node.domain


def _multiply_adds(node: ir.Node) -> int:
    return _COUNTERS[node.op_type](node)


def _lacks_shapes(node: ir.Node) -> bool:
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return any(static_shape(value) is None for value in values[:4])


def _conv(node: ir.Node) -> int:
    """Multiply-adds of a convolution: one filter, (out, in / groups, *kernel), per output element."""
    return math.prod(_shape(node, node.outputs[0])) * math.prod(_shape(node, node.inputs[1])[1:])


def _quantized_conv(node: ir.Node) -> int:
    """Multiply-adds of a convolution whose filter input follows the activation's scale and zero point."""
    return math.prod(_shape(node, node.outputs[0])) * math.prod(_shape(node, node.inputs[3])[1:])


def _conv_transpose(node: ir.Node) -> int:
    """Multiply-adds of a transposed convolution: one filter, (in, out / groups, *kernel), per input element."""
    return math.prod(_shape(node, node.inputs[0])) * math.prod(_shape(node, node.inputs[1])[1:])


def _matmul(node: ir.Node) -> int:
    return math.prod(_shape(node, node.outputs[0])) * _shape(node, node.inputs[0])[-1]


def _gemm(node: ir.Node) -> int:
    is_transposed = "transA" in node.attributes and node.attributes["transA"].as_int() == 1
    return math.prod(_shape(node, node.outputs[0])) * _shape(node, node.inputs[0])[0 if is_transposed else 1]


def _attention(node: ir.Node) -> int:
    """Multiply-adds of q kᵀ and of the weights times v, for (B, heads, N, size) or (B, N, heads * size) inputs."""
    query, key, value = (_shape(node, node.inputs[index]) for index in range(3))
    if len(query) == 4:
        scores = math.prod(query[:3]) * key[2]
        return scores * (query[3] + value[3])
    heads = {name: node.attributes[name].as_int() for name in ("q_num_heads", "kv_num_heads")}
    scores = math.prod(query[:2]) * key[1]
    return scores * (query[2] + heads["q_num_heads"] * value[2] // heads["kv_num_heads"])


_COUNTERS: dict[str, Callable[[ir.Node], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _quantized_conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Attention": _attention,
}
"""Multiply-add counters by operator; operators not listed cost nothing."""


def _shape(node: ir.Node, value: ir.Value | None) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise BackendError(
            f"the {node.op_type} node {node.name!r} has no fixed shape for {value.name if value else 'an input'!r}; "
            "its arithmetic cannot be counted"
        )
    return shape
