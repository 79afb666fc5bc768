"""Conversion of nodes to fp16 or bf16: set dtypes, convert weights, insert casts at precision boundaries.

onnxruntime's and onnxconverter-common's converters support fp16 only and keep operators in fp32 by a fixed list of
names; here the caller passes the measured set of nodes to keep, for both dtypes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from mvde.errors import BackendError
from mvde.export.graph.dtypes import computes, ir_dtype, schema_type
from mvde.precision import Precision

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def cast_nodes(model: ir.Model, precision: Precision, keep: Collection[str]) -> None:
    """Make every node of ``model`` except those named in ``keep`` compute in ``precision``, in place.

    Nodes whose operator lacks the dtype in the graph's opset also stay (see :func:`refused_nodes`). Graph inputs and
    outputs keep their dtypes.
    """
    stay = {*keep, *refused_nodes(model, precision)}
    caster = _Caster(model, ir_dtype(precision))
    for node in list(model.graph):
        if node.name not in stay and computes(node):
            caster.lower(node, _lowered_inputs(node, model.graph, precision))
        else:
            caster.widen_inputs(node)
    caster.finish()


def refused_nodes(model: ir.Model, precision: Precision) -> dict[str, str]:
    """Map each node that cannot compute in ``precision`` in the graph's opset to the reason."""
    refused = {}
    for node in model.graph:
        if computes(node) and not _takes(node, model.graph, precision):
            version = model.graph.opset_imports[node.domain]
            refused[str(node.name)] = f"{node.op_type} of opset {version} does not support {precision}"
    return refused


def _schema(node: ir.Node, graph: ir.Graph) -> onnx.defs.OpSchema:
    import onnx

    version = graph.opset_imports.get(node.domain, 1)
    try:
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError as error:
        where = f"{node.domain}." if node.domain else ""
        raise BackendError(
            f"node {node.name!r} is a {where}{node.op_type}, which opset {version} does not define, so its dtypes are "
            "not known; export the model again with mvde export, or keep this graph in fp32"
        ) from error


def _variables(schema: onnx.defs.OpSchema, precision: Precision) -> set[str]:
    """Type variables of an operator that allow ``precision``."""
    wanted = schema_type(precision)
    return {item.type_param_str for item in schema.type_constraints if wanted in item.allowed_type_strs}


def _takes(node: ir.Node, graph: ir.Graph, precision: Precision) -> bool:
    schema = _schema(node, graph)
    decides = schema.inputs if node.op_type == "QuantizeLinear" else schema.outputs
    return bool(decides) and decides[0].type_str in _variables(schema, precision)


def _lowered_inputs(node: ir.Node, graph: ir.Graph, precision: Precision) -> list[int]:
    """Indices of inputs that follow the node's dtype; others (the scales of a Resize) stay float32."""
    schema = _schema(node, graph)
    variables, formal = _variables(schema, precision), schema.inputs
    return [i for i in range(len(node.inputs)) if formal[min(i, len(formal) - 1)].type_str in variables]


class _Caster:
    """One pass over a graph in order, with its converted values and shared casts."""

    def __init__(self, model: ir.Model, low: ir.DataType) -> None:
        import onnx_ir as ir

        self._model = model
        self._graph = model.graph
        self._low = low
        self._high = ir.DataType.FLOAT
        self._converted: dict[tuple[str, ir.DataType], ir.Value] = {}

    def lower(self, node: ir.Node, inputs: Collection[int]) -> None:
        """Convert the node's inputs and outputs to the low dtype."""
        import onnx_ir as ir

        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(self._low))
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in {self._high, self._low}:
                wanted = self._low if index in inputs else self._high
                node.replace_input_with(index, self._in_dtype(value, wanted))
        for value in node.outputs:
            if value.dtype == self._high:
                value.type = ir.TensorType(self._low)  # a new object: clones of a graph share types

    def widen_inputs(self, node: ir.Node) -> None:
        """Cast inputs in the low dtype back to float32."""
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == self._low:
                node.replace_input_with(index, self._in_dtype(value, self._high))

    def finish(self) -> None:
        """Restore float32 graph outputs under their old names, and remove unused weights."""
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        for index, value in enumerate(self._graph.outputs):
            if value.dtype == self._low:
                name = value.name
                value.name = f"{name}.low"
                restored = self._in_dtype(value, self._high)
                restored.name = name
                self._graph.outputs[index] = restored
        RemoveUnusedNodesPass()(self._model)

    def _in_dtype(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another dtype: itself, a converted weight, or the output of one shared Cast."""
        if value.dtype == dtype:
            return value
        key = (str(value.name), dtype)
        if key not in self._converted:
            constant = value.const_value is not None and value.producer() is None
            self._converted[key] = self._convert_weight(value, dtype) if constant else self._cast(value, dtype)
        return self._converted[key]

    def _convert_weight(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        import onnx_ir as ir

        assert value.const_value is not None
        name = f"{value.name}.{dtype.name.lower()}"
        tensor = ir.tensor(value.const_value.numpy().astype(dtype.numpy()), dtype=dtype, name=name)
        converted = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape, const_value=tensor)
        self._graph.register_initializer(converted)
        return converted

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        import onnx_ir as ir

        name = f"{value.name}.{dtype.name.lower()}"
        converted = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
        cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[converted], name=f"cast {name}")
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return converted
