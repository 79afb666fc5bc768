"""The engine-id grammar, and what an engine says to the wrong input."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.engines.base import BACKENDS, PRECISIONS, EngineId, EngineInfo, check_images
from mvde.errors import EngineIdError, UsageError


@pytest.mark.parametrize("backend", [None, *BACKENDS])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_id_of_the_grammar_survives_a_round_trip(backend: str | None, precision: str) -> None:
    engine_id = EngineId(backend, precision)
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
    info = EngineInfo("openvino:fp32", "openvino", "fp32", "fp32", "cpu", (8, 8), 1, "1")
    check_images(np.zeros((1, 8, 8, 3), np.uint8), info)
    with pytest.raises(UsageError, match=r"takes RGB images of shape \(1, 8, 8, 3\) and dtype uint8"):
        check_images(images, info)
