"""8-bit linear layers through mvde's operator: exact in integers, only what the kernel computes, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.engines.base import BuildOptions, Graph
from mvde.engines.openvino import attention, int8_linear
from mvde.engines.openvino.compile import ENGINE_FILE, compile_graph
from mvde.engines.openvino.engine import import_blob
from mvde.engines.openvino.library import library_version, shared_core
from mvde.engines.openvino.operators import register
from mvde.errors import BackendError, IncompatibleEngineError
from mvde.precision import Precision
from mvde.records import EngineRecord

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

STEP = 0.05
TOKENS, DEPTH, COLUMNS = 64, 22, 50  # no multiples of the kernel's 4 and 24


@pytest.fixture
def _kernel() -> None:
    if reason := attention.unavailable(attention.AVX2, library_version()):
        pytest.skip(reason)
    register(shared_core())


@pytest.fixture
def _before_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_linear, "onednn_features", lambda: ("sse4_2", "avx", "avx2", "fma"))


def quantised(value: Any, low: float = -128 * STEP) -> Any:
    """A Q/DQ pair as OpenVINO reads it from ONNX."""
    bounds = [ops.constant(np.float32(one)) for one in (low, 127 * STEP, -128, 127)]
    narrow = ops.convert(ops.fake_quantize(value, *bounds, 256), np.int8)
    return ops.multiply(ops.convert(narrow, np.float32), ops.constant(np.float32(STEP)))


def dequantised(steps: np.ndarray, scale: np.ndarray) -> Any:
    return ops.multiply(ops.convert(ops.constant(steps), np.float32), ops.constant(scale.astype(np.float32)))


class Network:
    """A quantised convolution and a quantised linear layer behind it; the outputs are those of both."""

    def __init__(self, largest: int = 63, *, transposed: bool = False, low: float = -128 * STEP) -> None:
        rng = np.random.default_rng(0)
        self.steps = rng.integers(-largest, largest + 1, (DEPTH, COLUMNS)).astype(np.int8)
        self.steps[0, :2] = largest, -largest
        self.scale = rng.uniform(0.001, 0.002, COLUMNS).astype(np.float32)
        self.bias = rng.normal(size=COLUMNS).astype(np.float32)
        pixels = ops.parameter([1, 4, 8, 8], np.float32, "pixels")
        kernel = dequantised(rng.integers(-63, 64, (DEPTH, 4, 1, 1)).astype(np.int8), np.full((DEPTH, 1, 1, 1), 0.02))
        conv = ops.convolution(quantised(pixels), kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        tokens = ops.transpose(ops.reshape(conv, [1, DEPTH, TOKENS], False), [0, 2, 1])
        weights = (
            dequantised(np.ascontiguousarray(self.steps.T), self.scale[:, None])
            if transposed
            else dequantised(self.steps, self.scale[None])
        )
        product = ops.matmul(quantised(tokens, low), weights, False, transposed)
        self.model = openvino.Model(
            [ops.add(product, ops.constant(self.bias[None, None])), tokens], [pixels], "network"
        )

    def expected(self, tokens: np.ndarray) -> np.ndarray:
        rows = np.clip(np.rint(tokens / np.float32(STEP)), -128, 127).astype(np.int64)
        return (rows @ self.steps.astype(np.int64)) * (self.scale.astype(np.float64) * STEP) + self.bias


def pixels() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, (1, 4, 8, 8)).astype(np.float32)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("transposed", [False, True])
def test_the_products_are_exact(transposed: bool) -> None:
    network = Network(transposed=transposed)
    assert int8_linear.replace_linear(network.model) == 1
    compiled = shared_core().compile_model(network.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result, tokens = compiled([pixels()]).values()
    assert np.abs(tokens).max() > 127 * STEP  # some rows are clipped
    np.testing.assert_allclose(result, network.expected(tokens), rtol=1e-6, atol=1e-6)  # one rounding to float32


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("what", [{"largest": 64}, {"low": 0.0}])
def test_what_the_kernel_does_not_compute_stays(what: dict[str, Any]) -> None:
    """Weights of more than 7 bits, which could saturate, and rows with another zero point."""
    assert int8_linear.replace_linear(Network(**what).model) == 0


@pytest.mark.usefixtures("_kernel")
def test_a_graph_without_other_products_of_8_bits_stays() -> None:
    x = ops.parameter([1, 4, DEPTH], np.float32)
    weights = dequantised(np.full((DEPTH, 8), 3, np.int8), np.ones((1, 8)))
    assert int8_linear.replace_linear(openvino.Model([ops.matmul(quantised(x), weights, False, False)], [x])) == 0


@pytest.mark.usefixtures("_kernel", "_before_vnni")
def test_an_engine_is_built_with_it_and_loads_again(tmp_path: Path) -> None:
    network = Network()
    openvino.save_model(network.model, tmp_path / "graph.xml", compress_to_fp16=False)
    results = {}
    for kind in ("avx2", "openvino"):
        (folder := tmp_path / kind).mkdir()
        asked = {} if kind == "avx2" else {int8_linear.OPTION: "openvino"}
        built = compile_graph(Graph(tmp_path / "graph.xml"), folder, Precision.INT8, BuildOptions(library=asked))
        assert built.options[int8_linear.OPTION] == kind
        assert built.rewrites.get("int8_linear") == ("1 by mvde's AVX2 kernel" if kind == "avx2" else None)
        assert built.executed_precision.startswith("int8")
        results[kind] = import_blob(folder / ENGINE_FILE, built.options)([pixels()])[0]
    np.testing.assert_allclose(results["avx2"], results["openvino"], atol=2e-2)  # a few rows differ by a step


def test_with_vnni_it_is_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_linear, "onednn_features", lambda: ("sse4_2", "avx2", "avx512_vnni"))
    assert int8_linear.applied(shared_core(), Network().model, {}, library_version()) == ({}, {})


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="MVDE_INT8_LINEAR is 'fast': expected avx2 or openvino"):
        int8_linear.applied(shared_core(), Network().model, {int8_linear.OPTION: "fast"}, library_version())
    monkeypatch.setattr(attention, "library_path", lambda: None)
    with pytest.raises(
        BackendError, match=r"8-bit linear layers were requested but cannot run here: there is no libmvde"
    ):
        int8_linear.applied(shared_core(), Network().model, {int8_linear.OPTION: "avx2"}, library_version())


def test_an_engine_with_it_is_refused_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "library_path", lambda: None)
    options = {int8_linear.OPTION: "avx2"}
    record = EngineRecord("openvino:int8", "openvino", Precision.INT8, "int8+fp32", "CPU", "1", (), options, "0" * 64)
    with pytest.raises(
        IncompatibleEngineError, match=r"there is no libmvde_openvino.*mvde build --engine openvino:int8$"
    ):
        int8_linear.require(shared_core(), record, library_version(), tmp_path)
