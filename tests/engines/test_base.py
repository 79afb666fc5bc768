"""The engine-id grammar, and errors on wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.engines.backends import backend, backend_names
from mvde.engines.base import EngineId, EngineInfo, check_images
from mvde.errors import EngineIdError, UsageError
from mvde.precision import Precision


@pytest.mark.parametrize("name", [None, *backend_names()])
@pytest.mark.parametrize("precision", Precision)
def test_every_id_of_the_grammar_survives_a_round_trip(name: str | None, precision: Precision) -> None:
    engine_id = EngineId(name, precision)
    assert EngineId.parse(str(engine_id)) == engine_id


@pytest.mark.parametrize("text", ["", "fp4", "cuda:fp16", "openvino", "openvino:", ":fp16", "openvino:fp16:x", "fp 16"])
def test_an_id_outside_the_grammar_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(EngineIdError, match=r"\[BACKEND:\]PRECISION") as caught:
        EngineId.parse(text)
    assert repr(text) in str(caught.value)
    assert caught.value.exit_code == 2
    assert not EngineId.matches_grammar(text)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.uint8), [[1]]],
)
def test_images_of_another_shape_or_dtype_are_refused(images: np.ndarray) -> None:
    info = EngineInfo("openvino:fp32", "openvino", Precision.FP32, "fp32", "cpu", (8, 8), 1, "1")
    check_images(np.zeros((1, 8, 8, 3), np.uint8), info)
    with pytest.raises(UsageError, match=r"takes RGB images of shape \(1, 8, 8, 3\) and dtype uint8"):
        check_images(images, info)


@pytest.mark.parametrize(
    ("executed", "main"), [("int8+bf16", Precision.INT8), ("fp32", Precision.FP32), ("i4+fp16", None)]
)
def test_the_main_precision_is_the_first_that_is_executed(executed: str, main: Precision | None) -> None:
    info = EngineInfo("openvino:int8", "openvino", Precision.INT8, executed, "cpu", (8, 8), 1, "1")
    assert info.main_precision is main


@pytest.mark.parametrize("name", backend_names())
def test_every_backend_says_what_it_takes_and_what_it_leaves_unquantised(name: str) -> None:
    found = backend(name)
    assert found.name == name
    assert all(setting.name.isidentifier() and setting.help for setting in found.settings())
    for precision in Precision:
        rests = found.rests(precision)
        assert bool(rests) <= precision.is_quantized
        assert {found.graph_rest(rest) for rest in rests} <= {*rests, Precision.FP32}


def test_a_backend_that_is_none_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no backend 'cuda'; expected one of onnxruntime, openvino, tensorrt"):
        backend("cuda")
