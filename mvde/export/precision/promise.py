"""What a typed graph promises: how many nodes compute in which dtype, and what a parser should recognise in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("MatMul", "Conv", "ConvTranspose", "Gemm", "Attention")
_BOOKKEEPING = {"Cast", "CastLike", "Constant", "ConstantOfShape", "QuantizeLinear", "DequantizeLinear", "Shape"}


def num_by_dtype(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes by what they compute in; see :class:`mvde.manifest.LoweringRecord`."""
    types, stored = value_types(model), _dequantized(model)
    count: Counter[str] = Counter()
    for node in model.graph.node:
        dtype = types.get(node.output[0])
        if node.op_type in _BOOKKEEPING or dtype is None:
            continue
        operands = [stored.get(name) for name in node.input[:2]]
        is_quantized = node.op_type in PRODUCTS and len(operands) == 2 and None not in operands
        count[str(operands[0]) if is_quantized else dtype] += 1
    return dict(sorted(count.items()))


def num_attention(model: onnx.ModelProto) -> int:
    """Number of attentions: ``Attention`` nodes, and Softmax nodes whose result goes straight into a product."""
    softmax = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and softmax & set(node.input)]
    return len(products) + _count(model, "Attention")


def num_layer_norm(model: onnx.ModelProto) -> int:
    """Number of ``LayerNormalization`` nodes."""
    return _count(model, "LayerNormalization")


def _count(model: onnx.ModelProto, op_type: str) -> int:
    return len([node for node in model.graph.node if node.op_type == op_type])


def value_types(model: onnx.ModelProto) -> dict[str, str]:
    """Name of every float tensor → ``"fp32"``, ``"fp16"`` or ``"bf16"``, by ONNX's shape inference."""
    import onnx

    names = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {value.name: value.data_type for value in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    return {name: names[dtype] for name, dtype in found.items() if dtype in names}


def _dequantized(model: onnx.ModelProto) -> dict[str, str]:
    """Tensors that a DequantizeLinear hands out → ``"int8"`` or ``"fp8"``, by the dtype of its zero point."""
    import onnx

    names = {onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8", onnx.TensorProto.FLOAT8E4M3FN: "fp8"}
    stored = {value.name: value.data_type for value in model.graph.initializer}
    return {
        node.output[0]: names[stored[node.input[2]]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and len(node.input) > 2 and stored.get(node.input[2]) in names
    }
