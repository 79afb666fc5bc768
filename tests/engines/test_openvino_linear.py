"""Linear layers as convolutions: same results for every layer shape, and other operators are unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino")

from openvino import Model
from openvino import opset13 as ops

from mvde.engines.openvino import linear
from mvde.engines.openvino.library import shared_core
from mvde.precision import Precision

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def _layer(
    tokens: Any, num_in: int, num_out: int, rng: np.random.Generator, *, transposed: bool = False, bias: bool = True
) -> Any:
    shape = (num_out, num_in) if transposed else (num_in, num_out)
    weight = rng.normal(0, num_in**-0.5, shape).astype(np.float32)
    product = ops.matmul(tokens, ops.constant(weight), False, transposed)
    return ops.add(ops.constant(rng.normal(size=num_out).astype(np.float32)), product) if bias else product


def _model(num_tokens: int, batch: int = 1) -> Model:
    """Layers with and without bias and activation, the last of which feeds two additions."""
    rng = np.random.default_rng(0)
    tokens = ops.parameter([batch, num_tokens, 24], np.float32)
    hidden = ops.gelu(_layer(tokens, 24, 40, rng, transposed=True), "tanh")
    hidden = ops.swish(_layer(hidden, 40, 24, rng, bias=False))
    shared = _layer(hidden, 24, 24, rng)
    scores = ops.matmul(shared, shared, False, True)  # product of two activations, as in attention
    return Model([ops.add(ops.relu(shared), tokens), scores], [tokens])


def _run(model: Model, tokens: np.ndarray) -> list[np.ndarray]:
    compiled = shared_core().compile_model(model, "CPU", EXACT)
    return [np.array(result) for result in compiled([tokens]).values()]


@pytest.mark.parametrize(("num_tokens", "batch"), [(36, 1), (48, 2), (197, 1), (1, 1)])  # square, batch, prime, one
def test_the_sums_are_the_same(num_tokens: int, batch: int) -> None:
    tokens = np.random.default_rng(1).normal(size=(batch, num_tokens, 24)).astype(np.float32)
    model = _model(num_tokens, batch)
    expected = _run(model, tokens)
    assert linear.to_convolutions(model) == 3
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    assert (kinds.count("MatMul"), kinds.count("Convolution")) == (1, 3)
    for got, want in zip(_run(model, tokens), expected, strict=True):
        # summation order differs, over at most 40 products of order 1
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_a_bias_that_is_not_one_number_per_channel_stays_a_sum() -> None:
    """A different row per token, such as a position embedding, is not a bias."""
    rng = np.random.default_rng(0)
    tokens = ops.parameter([1, 4, 4], np.float32)
    rows = rng.normal(size=(4, 1)).astype(np.float32)
    model = Model([ops.add(_layer(tokens, 4, 4, rng, bias=False), ops.constant(rows))], [tokens])
    data = rng.normal(size=(1, 4, 4)).astype(np.float32)
    (expected,) = _run(model, data)
    assert linear.to_convolutions(model) == 1
    np.testing.assert_allclose(_run(model, data)[0], expected, rtol=1e-5, atol=1e-5)


def test_the_default_is_convolutions_in_bf16_on_amx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, wanted in ((("amx_bf16",), linear.CONVOLUTIONS), (("avx512_bf16",), linear.PRODUCTS)):
        monkeypatch.setattr(linear, "onednn_features", lambda features=features: features)
        assert linear.default(Precision.BF16) == wanted
        assert linear.default(Precision.FP32) == linear.default(Precision.INT8) == linear.PRODUCTS
