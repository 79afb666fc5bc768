"""GELU without the library's tanh: same values, only the tanh formula, and only before AVX-512."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino")

from openvino import Model
from openvino import opset13 as ops

from mvde.engines.base import BuildOptions
from mvde.engines.openvino import compile as compiling
from mvde.engines.openvino import gelu
from mvde.engines.openvino.library import shared_core
from mvde.precision import Precision

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
AVX2, AVX512 = ("sse4_2", "avx", "avx2", "fma"), ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw")


def _model(formula: str, count: int) -> Any:
    x = ops.parameter([1, count, 4], np.float32, "x")
    return Model([ops.relu(ops.gelu(x, formula)), ops.gelu(x, formula)], [x])


def _kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def test_the_values_are_those_of_the_tanh_formula() -> None:
    model = _model("tanh", 5000)
    assert gelu.by_sigmoid(model) == 2
    assert "Gelu" not in _kinds(model)
    x = np.concatenate([np.linspace(-12, 12, 19_996), [-3e4, 3e4, 0.0, -0.0]]).astype(np.float32).reshape(1, 5000, 4)
    wide = x.astype(np.float64)
    wanted = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    positive, plain = shared_core().compile_model(model, "CPU", EXACT)([x]).values()
    # The exponential's relative error in float32 is a few units in the last place; its argument reaches 200.
    np.testing.assert_allclose(plain, wanted, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(positive, np.maximum(wanted, 0), rtol=2e-5, atol=1e-6)


def test_a_value_that_is_not_a_number_stays_one() -> None:
    model = _model("tanh", 1)
    gelu.by_sigmoid(model)
    x = np.array([[[np.nan, 1, np.nan, -1]]], np.float32)
    plain = shared_core().compile_model(model, "CPU", EXACT)([x])[1]
    np.testing.assert_array_equal(np.isnan(plain), np.isnan(x))


def test_the_exact_formula_stays() -> None:
    model = _model("erf", 1)
    assert gelu.by_sigmoid(model) == 0
    assert _kinds(model).count("Gelu") == 2


@pytest.mark.parametrize(("features", "wanted"), [(AVX2, True), (AVX512, False), ((), False)])
def test_it_is_the_default_with_avx2_and_without_avx512(
    features: tuple[str, ...], wanted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``()`` are the features of an Arm CPU."""
    monkeypatch.setattr(gelu, "onednn_features", lambda: features)
    path = tmp_path / "graph.xml"
    import openvino

    openvino.save_model(_model("tanh", 1), path, compress_to_fp16=False)
    _, _, rewrites = compiling.compile_model(path, Precision.FP32, BuildOptions())
    assert rewrites.get("gelu") == ("2 by a sigmoid" if wanted else None)
