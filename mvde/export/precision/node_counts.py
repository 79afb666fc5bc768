"""Node counts of a typed graph: by compute dtype, and of the operators that a parser should recognise."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mvde.export.graph.dtypes import precision_of
from mvde.precision import Precision

if TYPE_CHECKING:
    import onnx

_PRODUCTS = ("MatMul", "Conv", "ConvTranspose", "Gemm", "Attention")
_BOOKKEEPING = {"Cast", "CastLike", "Constant", "ConstantOfShape", "QuantizeLinear", "DequantizeLinear", "Shape"}


def num_by_dtype(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes by compute dtype; see :class:`mvde.records.LoweringRecord`."""
    types, stored = _float_types(model), _dequantized(model)
    count: Counter[str] = Counter()
    for node in model.graph.node:
        dtype = types.get(node.output[0])
        if node.op_type in _BOOKKEEPING or dtype is None:
            continue
        operands = [stored.get(name) for name in node.input[:2]]
        is_quantized = node.op_type in _PRODUCTS and len(operands) == 2 and None not in operands
        count[str(operands[0] if is_quantized else dtype)] += 1
    return dict(sorted(count.items()))


def num_attention(model: onnx.ModelProto) -> int:
    """Number of attentions: ``Attention`` nodes, and Softmax nodes whose output feeds a MatMul."""
    softmax = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and softmax & set(node.input)]
    return len(products) + _count(model, "Attention")


def num_layer_norm(model: onnx.ModelProto) -> int:
    """Number of ``LayerNormalization`` nodes."""
    return _count(model, "LayerNormalization")


def _count(model: onnx.ModelProto, op_type: str) -> int:
    return len([node for node in model.graph.node if node.op_type == op_type])


def _float_types(model: onnx.ModelProto) -> dict[str, Precision]:
    """Precision of every float tensor by name, from ONNX's shape inference."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    dtypes = {value.name: value.data_type for value in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dtypes[value.name] = value.type.tensor_type.elem_type
    found = {name: precision_of(dtype) for name, dtype in dtypes.items()}
    return {name: dtype for name, dtype in found.items() if dtype is not None and not dtype.is_quantized}


def _dequantized(model: onnx.ModelProto) -> dict[str, Precision]:
    """Storage precision of DequantizeLinear outputs by name, from the dtype of the zero point."""
    stored = {value.name: precision_of(value.data_type) for value in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and len(node.input) > 2]
    found = {node.output[0]: stored.get(node.input[2]) for node in nodes}
    return {name: dtype for name, dtype in found.items() if dtype is not None and dtype.is_quantized}
