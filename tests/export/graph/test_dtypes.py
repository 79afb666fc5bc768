"""Conversion between precisions and ONNX dtypes, and opsets against ONNX's operator schemas."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

from mvde.export.graph.dtypes import first_opset, ir_dtype, precision_of, schema_type  # noqa: E402
from mvde.precision import Precision  # noqa: E402


@pytest.mark.parametrize("precision", Precision)
def test_every_precision_has_a_dtype_and_is_found_again(precision: Precision) -> None:
    assert precision_of(ir_dtype(precision)) is precision
    assert precision_of(int(ir_dtype(precision))) is precision


def test_dtypes_that_are_no_precision_give_none() -> None:
    assert precision_of(onnx.TensorProto.INT64) is None
    assert precision_of(None) is None
    assert precision_of(onnx.TensorProto.UINT8) is Precision.INT8


@pytest.mark.parametrize(
    ("operator", "precision", "rest", "needed"),
    [
        ("Conv", Precision.BF16, Precision.FP32, schema_type(Precision.BF16)),
        ("QuantizeLinear", Precision.FP8, Precision.FP32, schema_type(Precision.FP8)),
        ("QuantizeLinear", Precision.INT8, Precision.FP16, schema_type(Precision.FP16)),
    ],
)
def test_the_first_opset_is_where_the_operator_takes_the_dtype(
    operator: str, precision: Precision, rest: Precision, needed: str
) -> None:
    def allowed(opset: int) -> set[str]:
        schema = onnx.defs.get_schema(operator, opset, "")
        return {name for item in schema.type_constraints for name in item.allowed_type_strs}

    opset = first_opset(precision, rest)
    assert needed in allowed(opset)
    assert needed not in allowed(opset - 1)
