"""Precisions as ONNX's dtypes and back: the one place that knows which stores which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.precision import Precision

if TYPE_CHECKING:
    import onnx_ir as ir


def ir_dtype(precision: Precision) -> ir.DataType:
    """The dtype that tensors of a precision are stored in."""
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
    """The dtype as ONNX's operator schemas spell it: ``"tensor(bfloat16)"``."""
    return f"tensor({ir_dtype(precision).name.lower()})"


def precision_of(dtype: int | None) -> Precision | None:
    """The precision stored in a dtype (of onnx_ir, or onnx's number of it), ``None`` for what is none.

    Bytes without a sign are int8, too: ONNX Runtime's quantiser writes them.
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
    """The first opset whose operators take the dtypes of a graph in ``precision``.

    ``rest`` is what the nodes of a quantised graph that are not quantised compute in. Conv takes bf16 from 22 on,
    Q/DQ takes fp8, and scales in fp16, from 19 on.
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
    """Whether a node of an fp32 graph gives real numbers (or takes them, to quantise them)."""
    return node.op_type == "QuantizeLinear" or any(is_fp32(value) for value in node.outputs)


def is_fp32(value: ir.Value | None) -> bool:
    """Whether a value is there and float32."""
    return value is not None and precision_of(value.dtype) is Precision.FP32


def is_half(value: ir.Value | None) -> bool:
    """Whether a value is there and fp16 or bf16."""
    return value is not None and precision_of(value.dtype) in (Precision.FP16, Precision.BF16)
