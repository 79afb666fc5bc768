"""How much arithmetic a graph is: floating-point operations of its products, from the shapes in the graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mvde.errors import BackendError

if TYPE_CHECKING:
    import onnx_ir as ir


def count_flops(model: ir.Model) -> int:
    """Floating-point operations of one run of the graph (its whole batch); a multiply and an add are two.

    Counted are convolutions, matrix products and attention (both of its products), as is usual; what is left out
    (activations, normalisation, resizing) is about one per cent of a vision transformer's arithmetic. Quantized
    products count the same.

    Raises :class:`BackendError` where the graph does not state a shape that the count needs.
    """
    products = [node for node in model.graph.all_nodes() if node.op_type in _COUNTERS and not node.domain]
    if any(_lacks_shapes(node) for node in products):
        from onnx_ir.passes.common import ShapeInferencePass

        ShapeInferencePass()(model)
    return sum(2 * _COUNTERS[node.op_type](node) for node in products)


def _lacks_shapes(node: ir.Node) -> bool:
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return any(value.shape is None for value in values[:4])


def _conv(node: ir.Node) -> int:
    """Multiply-adds: every output element reads one filter, (out, in / groups, *kernel)."""
    return math.prod(_shape(node, node.outputs[0])) * math.prod(_shape(node, node.inputs[1])[1:])


def _conv_transpose(node: ir.Node) -> int:
    """Multiply-adds: every input element is spread by one filter, (in, out / groups, *kernel)."""
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


_COUNTERS = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": lambda node: math.prod(_shape(node, node.outputs[0])) * math.prod(_shape(node, node.inputs[3])[1:]),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Attention": _attention,
}


def _shape(node: ir.Node, value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None or not value.shape.is_static():
        raise BackendError(
            f"the {node.op_type} node {node.name!r} has no fixed shape for {value.name if value else 'an input'!r}; "
            "its arithmetic cannot be counted"
        )
    return value.shape.numpy()
