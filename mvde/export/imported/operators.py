"""Nodes that an engine cannot run, refused by name: custom, quantised, random and data-dependent operators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvde.errors import ArtifactError
from mvde.export.graph.edit import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

_QUANTIZED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
}
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "Scan", "If"}


def check_operators(model: ir.Model, path: Path) -> None:
    """Raise :class:`ArtifactError` naming a node that is custom, unknown, unconnected, quantised or random.

    Functions of the file are inlined before, so that what remains of another domain has no definition.
    """
    import onnx

    opset = model.graph.opset_imports[""]
    for node in model.graph.all_nodes():
        what = f"node {node.name!r} of {path} is a {node.op_type}"
        if node.domain not in ("", "ai.onnx"):
            raise ArtifactError(
                f"node {node.name!r} of {path} is a custom operator, {node.domain}.{node.op_type}; mvde imports "
                "standard ONNX operators: export the model again without optimisation for one runtime"
            )
        # A damaged name that is not Unicode is read as bytes.
        if not isinstance(node.op_type, str) or not onnx.defs.has(node.op_type, opset, ""):
            raise ArtifactError(
                f"{what}, which opset {opset} of ONNX does not have; the file is damaged: export it again"
            )
        if (lost := next((value for value in node.inputs if _is_lost(value)), None)) is not None:
            raise ArtifactError(f"{what} that reads {lost.name!r}, which no node makes; the file is damaged")
        if node.op_type in _QUANTIZED:
            raise ArtifactError(f"{what}, so it is quantised; import the float file, and quantise it with `mvde lower`")
        if node.op_type in _RANDOM:
            raise ArtifactError(f"{what}, whose result differs from call to call; export the model in evaluation mode")


def check_static(model: ir.Model, path: Path) -> None:
    """Raise :class:`ArtifactError` naming the first node whose output's size depends on the picture.

    ``model`` has fixed input sizes, and its shapes were folded.
    """
    for node in model.graph:
        if node.op_type in _DATA_DEPENDENT or any(_is_open(value) for value in node.outputs):
            raise ArtifactError(
                f"node {node.name!r} of {path} is a {node.op_type} whose output's size depends on the picture; engines "
                "have fixed sizes: export the model without it"
            )


def largest_step_bytes(model: ir.Model) -> int:
    """Largest number of bytes that one node of a static graph reads and writes, weights excluded."""
    largest = 0
    for node in model.graph:
        values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.const_value is None]
        largest = max(largest, sum(_num_bytes(value) for value in values))
    return largest


def _num_bytes(value: ir.Value) -> int:
    import math

    shape = static_shape(value)
    return 0 if shape is None or value.dtype is None else math.prod(shape) * -(-value.dtype.bitwidth // 8)


def _is_lost(value: ir.Value | None) -> bool:
    """Whether a value comes from nowhere."""
    if value is None or value.const_value is not None:
        return False
    return value.producer() is None and not value.is_graph_input()


def _is_open(value: ir.Value) -> bool:
    """Whether a value that is used has no static shape."""
    is_used = bool(value.uses()) or value.is_graph_output()
    return is_used and static_shape(value) is None
