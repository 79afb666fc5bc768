"""Emulation of a typed graph on a CPU without its dtypes: float32 arithmetic with the same roundings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.export.graph.dtypes import is_half

if TYPE_CHECKING:
    import onnx_ir as ir


def emulated(model: ir.Model) -> ir.Model:
    """Float32 copy of a typed graph in which every fp16 or bf16 tensor is rounded to that dtype and widened again.

    Products accumulate in float32 and are rounded once at the end, as on tensor cores and AMX. A backend that fuses
    nodes rounds less often, so this is a lower bound on its accuracy. Values beyond fp16's range become infinite here,
    whereas ONNX Runtime's CPU provider, which computes fp16 graphs in float32, would hide them.
    """
    copy = model.clone()
    graph = copy.graph
    for value in list(graph.initializers.values()):
        if is_half(value):
            _widen_weight(value)
    for node in list(graph):
        _widen_node(graph, node)
    return copy


def _widen_weight(value: ir.Value) -> None:
    import numpy as np
    import onnx_ir as ir

    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
    value.type = ir.TensorType(ir.DataType.FLOAT)  # a new object: clones share types


def _widen_node(graph: ir.Graph, node: ir.Node) -> None:
    import onnx_ir as ir

    if node.op_type == "Cast" and is_half(node.outputs[0]):
        node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
    for value in node.outputs:
        if is_half(value):
            _round(graph, node, value)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Make ``value`` float32, and give its readers a copy rounded to its former dtype."""
    import onnx_ir as ir

    dtype = value.dtype
    assert dtype is not None
    rounded = ir.Value(name=f"{value.name}.rounded", type=ir.TensorType(dtype), shape=value.shape)
    widened = ir.Value(name=f"{value.name}.widened", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
    value.replace_all_uses_with(widened)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    down = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[rounded])
    up = ir.Node("", "Cast", [rounded], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], outputs=[widened])
    graph.insert_after(node, [down, up])
