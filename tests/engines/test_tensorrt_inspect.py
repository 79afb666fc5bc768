"""Checks on a parsed network's statistics: shares by dtype, accepted precisions, and unmet promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mvde.engines.tensorrt.inspect import check_network, check_promise
from mvde.errors import BackendError
from mvde.precision import Precision
from mvde.records import LoweringRecord, NetworkRecord

FACTS = NetworkRecord(
    num_layers=480,
    num_by_dtype={"fp16": 90, "fp32": 10},
    products_by_dtype={"fp16": 70, "fp32": 5},
    num_attention=12,
    num_softmax=0,
    num_layer_norm=25,
)
PROMISED = LoweringRecord(Precision.FP16, "0" * 64, {"fp16": 90, "fp32": 10}, num_attention=12, num_layer_norm=25)


def test_a_network_as_promised_passes() -> None:
    check_network(FACTS, Precision.FP16, "TensorRT")
    check_promise(FACTS, PROMISED, "TensorRT")
    assert FACTS.executed_precision == "fp16+fp32"
    assert FACTS.share("fp16") == 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention": 0}, "0 attentions are recognised, promised 12"),
        ({"num_layer_norm": 24}, "24 layer normalisations are recognised, promised 25"),
        (
            {"num_by_dtype": {"fp32": 100}},
            "0% of its nodes compute in fp16, promised 90%; 100% of its nodes compute in fp32",
        ),
        ({"num_by_dtype": {"fp16": 100}}, "100% of its nodes compute in fp16, promised 90%"),  # kept nodes were lost
    ],
)
def test_every_broken_promise_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        check_promise(dataclasses.replace(FACTS, **changes), PROMISED, "TensorRT")


def test_attentions_by_their_softmax_count_where_the_opset_has_no_operator() -> None:
    check_promise(dataclasses.replace(FACTS, num_attention=0, num_softmax=12), PROMISED, "TensorRT")


def test_one_node_more_or_less_in_a_hundred_is_the_parsers_affair() -> None:
    check_promise(dataclasses.replace(FACTS, num_by_dtype={"fp16": 90, "fp32": 11}), PROMISED, "TensorRT")


def test_an_fp16_engine_that_would_be_fp32_is_refused() -> None:
    silent = dataclasses.replace(FACTS, products_by_dtype={"fp32": 75})
    with pytest.raises(BackendError, match=r"most products in fp32, not fp16 \(75 in fp32\)"):
        check_network(silent, Precision.FP16, "TensorRT")


def test_int8_needs_some_products_in_int8_not_most() -> None:
    mixed = dataclasses.replace(FACTS, products_by_dtype={"fp16": 60, "int8": 15})
    check_network(mixed, Precision.INT8, "TensorRT")
    with pytest.raises(BackendError, match="not int8"):
        check_network(FACTS, Precision.INT8, "TensorRT")


def test_a_resized_constant_is_named() -> None:
    with pytest.raises(BackendError, match=r"resizes constants at run time \(resample\)"):
        check_network(dataclasses.replace(FACTS, constant_resizes=("resample",)), Precision.FP16, "TensorRT")
