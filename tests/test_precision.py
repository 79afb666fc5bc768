"""The precision enumeration against the definitions of the number formats."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from mvde.errors import UsageError
from mvde.precision import LOWERED, Precision

FLOAT_TYPES = {
    Precision.FP32: np.float32,
    Precision.FP16: np.float16,
    Precision.BF16: ml_dtypes.bfloat16,
    Precision.FP8: ml_dtypes.float8_e4m3fn,
}


@pytest.mark.parametrize("precision", FLOAT_TYPES, ids=str)
def test_numbers_of_a_float_format_are_those_of_its_definition(precision: Precision) -> None:
    facts = ml_dtypes.finfo(FLOAT_TYPES[precision])
    assert precision.significand_bits == facts.nmant + 1
    assert precision.largest == float(facts.max)


def test_int8_is_symmetric() -> None:
    assert Precision.INT8.largest == -(np.iinfo(np.int8).min + 1)


def test_a_precision_is_its_text_wherever_one_is_written() -> None:
    assert f"openvino:{Precision.BF16}" == "openvino:bf16"
    assert str(Precision.BF16) == "bf16"
    assert json.dumps({"precision": Precision.BF16}) == '{"precision": "bf16"}'


def test_an_unknown_precision_is_refused_with_the_names_there_are() -> None:
    assert Precision.parse(" FP16 ") is Precision.FP16
    with pytest.raises(UsageError, match=r"'fp64' is not known; expected one of fp32, fp16, bf16, int8, fp8"):
        Precision.parse("fp64")


def test_quantised_precisions_are_lowered_too() -> None:
    quantized = {precision for precision in Precision if precision.is_quantized}
    assert quantized == {Precision.INT8, Precision.FP8}
    assert quantized < set(LOWERED)
    assert Precision.FP32 not in LOWERED
