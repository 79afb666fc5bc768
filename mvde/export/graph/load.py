"""Loading and validation of an fp32 graph that is to be lowered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvde.engines.base import one_line
from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.export.graph.dtypes import computes, first_opset, is_half
from mvde.precision import Precision

if TYPE_CHECKING:
    import onnx_ir as ir


def load_fp32(path: Path, precision: Precision, rest: Precision = Precision.FP32) -> ir.Model:
    """Load the graph at ``path`` with inferred dtypes and shapes, and a name for every node.

    ``precision`` is the target precision, ``rest`` that of the non-quantised nodes of a quantised graph. Raises
    :class:`BackendError` if the graph cannot be read or its shapes cannot be inferred, :class:`UsageError` if it is
    typed already or its opset is too old.
    """
    try:
        import onnx_ir as ir
        from onnx_ir.passes import common
    except ImportError as error:
        raise MissingDependencyError.for_extra("onnx-ir", "export", "writing a typed graph") from error
    try:
        model = ir.load(path)
        common.LiftConstantsToInitializersPass()(model)
        model = common.ShapeInferencePass()(model).model
    except Exception as error:  # protobuf, onnx and onnx_ir exceptions share no base class
        raise BackendError(f"cannot read {path} as an ONNX graph: {one_line(error)}") from error
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
    _check_untyped(model, path)
    _check_opset(model, path, precision, rest)
    _check_dtypes(model, path)
    return model


def _check_untyped(model: ir.Model, path: Path) -> None:
    """Raise :class:`UsageError` if a node already computes in a dtype other than float32."""
    typed = [node for node in model.graph if any(is_half(value) for value in node.outputs)]
    typed += [node for node in model.graph if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    if typed:
        raise UsageError(
            f"{path} is typed already (its node {typed[0].name!r} is a {typed[0].op_type} of another dtype); give the "
            "fp32 graph that mvde export wrote"
        )


def _check_opset(model: ir.Model, path: Path, precision: Precision, rest: Precision) -> None:
    """Raise :class:`UsageError` if the graph's opset does not support the dtypes."""
    opset, needed = model.graph.opset_imports.get("", 0), first_opset(precision, rest)
    if opset < needed:
        besides = f" with the rest in {rest}" if precision.is_quantized and rest is not Precision.FP32 else ""
        raise UsageError(
            f"{path} has opset {opset}, whose operators do not support {precision}{besides}; it needs {needed} or "
            "later: export it again with mvde export --opset 23"
        )


def _check_dtypes(model: ir.Model, path: Path) -> None:
    """Raise an error if a node's dtype is unknown, or if no node computes in float32."""
    unknown = [node for node in model.graph if node.outputs and node.outputs[0].dtype is None]
    if unknown:
        operator = ".".join(filter(None, (unknown[0].domain, unknown[0].op_type)))
        raise BackendError(
            f"{path} cannot be lowered: the output dtype of node {unknown[0].name!r} ({operator}) is "
            "unknown to ONNX; export the model again with mvde export, or keep the graph in fp32"
        )
    if not any(computes(node) for node in model.graph):
        raise UsageError(f"{path} has no node that computes in fp32; there is nothing to lower")
