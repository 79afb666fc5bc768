"""Mapping between precisions and ONNX dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.precision import Precision

if TYPE_CHECKING:
    import onnx_ir as ir


def ir_dtype(precision: Precision) -> ir.DataType:
    """Storage dtype of tensors in a precision."""
    import onnx_ir as ir

    match precision:
        case Precision.FP32:
            return ir.DataType.FLOAT
        case Precision.FP16:
            return ir.DataType.FLOAT16
        case Precision.BF16:
            return ir.DataType.BFLOAT16
        case Precision.INT8:
            return ir.DataType.INT8
        case Precision.FP8:
            return ir.DataType.FLOAT8E4M3FN


def schema_type(precision: Precision) -> str:
    """Dtype as spelled in ONNX operator schemas: ``"tensor(bfloat16)"``."""
    return f"tensor({ir_dtype(precision).name.lower()})"


def precision_of(dtype: int | None) -> Precision | None:
    """Precision of a dtype (an onnx_ir or onnx number), ``None`` if there is none.

    Unsigned bytes count as int8: ONNX Runtime's quantiser writes them.
    """
    import onnx_ir as ir

    match dtype:
        case ir.DataType.FLOAT:
            return Precision.FP32
        case ir.DataType.FLOAT16:
            return Precision.FP16
        case ir.DataType.BFLOAT16:
            return Precision.BF16
        case ir.DataType.INT8 | ir.DataType.UINT8:
            return Precision.INT8
        case ir.DataType.FLOAT8E4M3FN:
            return Precision.FP8
        case _:
            return None


def first_opset(precision: Precision, rest: Precision = Precision.FP32) -> int:
    """First opset whose operators support the dtypes of a graph in ``precision``.

    ``rest`` is the precision of the non-quantised nodes of a quantised graph. Conv supports bf16 from opset 22; Q/DQ
    supports fp8, and fp16 scales, from opset 19.
    """
    match precision:
        case Precision.FP32 | Precision.FP16:
            return 18
        case Precision.BF16:
            return 22
        case Precision.INT8:
            return 18 if rest is Precision.FP32 else 19
        case Precision.FP8:
            return 19


def computes(node: ir.Node) -> bool:
    """Whether a node of an fp32 graph produces floating-point values (or quantises them)."""
    return node.op_type == "QuantizeLinear" or any(is_fp32(value) for value in node.outputs)


def is_fp32(value: ir.Value | None) -> bool:
    """Whether a value is present and float32."""
    return value is not None and precision_of(value.dtype) is Precision.FP32


def is_half(value: ir.Value | None) -> bool:
    """Whether a value is present and fp16 or bf16."""
    return value is not None and precision_of(value.dtype) in (Precision.FP16, Precision.BF16)
