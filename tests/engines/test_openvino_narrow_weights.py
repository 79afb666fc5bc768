"""Weights in bf16 inside a blob: kept only where graph, bits and time are as with fp32 weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mvde.engines.base import BuildOptions
from mvde.engines.openvino import compile as compiling
from mvde.engines.openvino import narrow_weights
from mvde.engines.openvino.library import arithmetic, shared_core
from mvde.precision import Precision

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "1"}


def widened(halves: np.ndarray) -> np.ndarray:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def convolutions(is_exact: bool) -> Any:
    """Two convolutions with the same weights and one of others; those have bf16's digits if ``is_exact``."""
    rng = np.random.default_rng(0)

    def weights() -> Any:
        values = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
        return ops.constant(widened(narrow_weights.rounded(values)) if is_exact else values)

    image = value = ops.parameter(openvino.Shape([1, 64, 8, 8]), openvino.Type.f32)
    shared = weights()
    for kernel in (shared, shared, weights()):
        value = ops.relu(ops.convolution(value, kernel, [1, 1], [1, 1], [1, 1], [1, 1]))
    return openvino.Model([value], [image])


def linear_layer() -> Any:
    """A linear layer with a bias, which the library fuses with it."""
    rng = np.random.default_rng(0)
    tokens = ops.parameter(openvino.Shape([1, 8, 16]), openvino.Type.f32)
    weights, bias = (ops.constant(rng.standard_normal(size).astype(np.float32)) for size in ((16, 16), (16,)))
    return openvino.Model([ops.relu(ops.add(ops.matmul(tokens, weights, False, True), bias))], [tokens])


def size_of(model: Any) -> int:
    return len(shared_core().compile_model(model, "CPU", EXACT).export_model().getvalue())


def run(compiled: Any) -> np.ndarray:
    return np.array(compiled([np.random.default_rng(1).random((1, 64, 8, 8), np.float32)])[0])


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that both blobs take the same time."""
    monkeypatch.setattr(narrow_weights, "least_times_s", lambda runs: dict.fromkeys(runs, 1e-3))


def test_values_are_rounded_to_the_nearest_and_to_even() -> None:
    values = np.float32([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9, 0, np.inf])
    wanted = [1, 1, 1 + 2**-6, 1 + 2**-7, -1, 0, np.inf]
    np.testing.assert_array_equal(widened(narrow_weights.rounded(values)), wanted)


@pytest.mark.usefixtures("in_no_time")
def test_the_blob_shrinks_by_half_and_computes_the_same_bits() -> None:
    model, wide = convolutions(True), convolutions(True)
    compiled, note = narrow_weights.compiled(shared_core(), model, EXACT, "f32")
    assert note == "3 in bf16"
    assert len(compiled.export_model().getvalue()) < 0.55 * size_of(wide)
    np.testing.assert_array_equal(run(compiled), run(shared_core().compile_model(wide, "CPU", EXACT)))


@pytest.mark.usefixtures("in_no_time")
def test_weights_stay_where_results_would_differ() -> None:
    size = size_of(convolutions(False))
    compiled, note = narrow_weights.compiled(shared_core(), convolutions(False), EXACT, "f32")
    assert note == "fp32: in bf16 results differ"
    assert len(compiled.export_model().getvalue()) == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize(("factor", "note"), [(1.02, "3 in bf16"), (1.1, "fp32: in bf16 it takes 1.10 times as long")])
def test_weights_stay_where_it_would_take_longer(monkeypatch: pytest.MonkeyPatch, factor: float, note: str) -> None:
    monkeypatch.setattr(narrow_weights, "least_times_s", lambda runs: {"wide": 1e-3, "narrow": factor * 1e-3})
    assert narrow_weights.compiled(shared_core(), convolutions(True), EXACT, "f32")[1] == note


@pytest.mark.usefixtures("in_no_time")
def test_weights_stay_where_other_operators_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    executed = narrow_weights._executed

    def with_a_convert(compiled: Any) -> Any:
        found = executed(compiled)
        with_a_convert.calls += 1  # type: ignore[attr-defined]
        return found + type(found)({("Convert", "ref"): with_a_convert.calls - 1})  # type: ignore[attr-defined]

    with_a_convert.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(narrow_weights, "_executed", with_a_convert)
    note = narrow_weights.compiled(shared_core(), convolutions(True), EXACT, "f32")[1]
    assert note == "fp32: in bf16 other operators run: 1 Convert ref"


def test_weights_of_what_computes_in_another_precision_stay() -> None:
    if arithmetic(Precision.BF16).works:
        pytest.skip("this CPU computes in bf16")
    model = convolutions(True)
    assert narrow_weights.compiled(shared_core(), model, EXACT)[1] == "fp32: no product computes in bf16"
    assert not any(node.get_type_name() == "Convert" for node in model.get_ops())


def test_a_linear_layer_is_found_by_the_name_of_its_bias() -> None:
    model = linear_layer()
    names = narrow_weights._layers_in(shared_core().compile_model(model, "CPU", EXACT), "f32")
    assert narrow_weights.narrow(shared_core(), model, names) == 1
    assert narrow_weights.narrow(shared_core(), model, names) == 0


def test_an_engine_in_bf16_says_what_its_weights_are(tmp_path: Any) -> None:
    if not arithmetic(Precision.BF16).works:
        pytest.skip("this CPU has no bf16")
    openvino.save_model(convolutions(False), tmp_path / "graph.xml")
    rewrites = compiling.compile_model(tmp_path / "graph.xml", Precision.BF16, BuildOptions())[2]
    assert rewrites[narrow_weights.REWRITE].startswith(("3 in bf16", "fp32: in bf16 "))
