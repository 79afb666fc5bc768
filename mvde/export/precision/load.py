"""Reading an fp32 graph that is to be lowered, and refusing one that cannot be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.export.precision.cast import computes

if TYPE_CHECKING:
    import onnx_ir as ir

MIN_OPSET = {"fp16": 18, "bf16": 22, "int8": 18, "fp8": 19, "int8+fp16": 19, "fp8+fp16": 19}
"""The first opset whose operators take the dtype: Conv takes bf16 from 22, Q/DQ takes fp8 and fp16 scales from 19."""


def load_fp32(path: Path, precision: str) -> ir.Model:
    """The graph at ``path`` with the dtype and shape of every tensor known, and every node named.

    Raises :class:`BackendError` where it cannot be read or its shapes do not follow, :class:`UsageError` where it is
    typed already or its opset is too old for ``precision``.
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
    except Exception as error:  # protobuf's, onnx's and onnx_ir's own, without a common base
        raise BackendError(f"cannot read {path} as an ONNX graph: {' '.join(str(error).split())[:400]}") from error
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
    _check(model, path, precision)
    return model


def multiply_adds(model: ir.Model) -> int:
    """Multiplications by weights in one run of the graph."""
    total = 0
    for node in model.graph:
        weight = node.inputs[1] if node.op_type in {"MatMul", "Conv", "ConvTranspose"} else None
        shape = node.outputs[0].shape
        if weight is None or weight.const_value is None or weight.shape is None or shape is None:
            continue
        sizes, channels_at = weight.shape.numpy(), 0 if node.op_type == "Conv" else 1
        outputs = math.prod(shape.numpy())
        total += outputs * math.prod(sizes) // sizes[channels_at]
    return total


def _check(model: ir.Model, path: Path, precision: str) -> None:
    import onnx_ir as ir

    low = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    typed = [node for node in model.graph if any(value.dtype in low for value in node.outputs)]
    typed += [node for node in model.graph if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    if typed:
        raise UsageError(
            f"{path} is typed already (its node {typed[0].name!r} is a {typed[0].op_type} of another dtype); give the "
            "fp32 graph that mvde export wrote"
        )
    opset = model.graph.opset_imports.get("", 0)
    if opset < MIN_OPSET[precision]:
        raise UsageError(
            f"{path} has opset {opset}, whose operators cannot be {precision}; it needs {MIN_OPSET[precision]} or "
            "later: export it again with mvde export --opset 23"
        )
    unknown = [node for node in model.graph if node.outputs and node.outputs[0].dtype is None]
    if unknown:
        operator = ".".join(filter(None, (unknown[0].domain, unknown[0].op_type)))
        raise BackendError(
            f"{path} cannot be lowered: the dtype of what node {unknown[0].name!r} ({operator}) gives is "
            "not known to ONNX; export the model again with mvde export, or keep the graph in fp32"
        )
    if not any(computes(node) for node in model.graph):
        raise UsageError(f"{path} has no node that computes in fp32; there is nothing to lower")
