"""Conversion of a half-precision graph to float32, which mvde exports and lowers from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision")


def widen_halves(model: ir.Model) -> int:
    """Turn every fp16 and bf16 tensor of a graph into float32; return the number of tensors that changed.

    Half-precision numbers are float32 numbers, so the weights keep their values; only the arithmetic between them is
    finer than the file's.
    """
    import onnx_ir as ir

    halves = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    changed = 0
    for graph in [model.graph, *model.graph.subgraphs()]:
        values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
        for value in [*values, *(value for node in graph for value in node.outputs)]:
            if value.const_value is not None and value.const_value.dtype in halves:
                value.const_value = _widened(value.const_value, str(value.name))
                changed += 1
            if value.dtype in halves:
                value.type = ir.TensorType(ir.DataType.FLOAT)
        for node in graph:
            changed += _widen_attributes(node, halves)
    return changed


def _widen_attributes(node: ir.Node, halves: set[ir.DataType]) -> int:
    """Widen a node's tensors, and the dtype that it converts to."""
    import onnx_ir as ir

    changed = 0
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in halves:
            node.attributes[name] = ir.AttrTensor(name, _widened(attribute.as_tensor(), name))
            changed += 1
        elif name in _DTYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT and attribute.as_int() in halves:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    return changed


def _widened(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    import onnx_ir as ir

    return ir.tensor(tensor.numpy().astype(np.float32), name=name)
