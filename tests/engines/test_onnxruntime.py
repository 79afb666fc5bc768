"""ONNX Runtime engines against a closed-form depth, and what they say they computed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import Artifact
from mvde.engines import onnxruntime as backend
from mvde.engines.base import BuildOptions, Graph
from mvde.engines.store import load_engine
from mvde.errors import BackendError, UsageError

pytest.importorskip("onnxruntime")


def test_the_reference_computes_the_graph(
    tmp_path: Path, write_graph: Callable[..., Artifact], random_images: Callable, closed_form_depth: Callable
) -> None:
    engine = backend.open_onnx(write_graph(tmp_path, batch=2).path, num_threads=1)
    images = random_images(2, 32, 48, 3)
    # One product of three terms per pixel: a few float32 roundings.
    np.testing.assert_allclose(engine.infer(images), closed_form_depth(images), rtol=1e-6)
    assert (engine.info.batch, engine.info.resolution) == (2, (32, 48))


def test_an_fp16_engine_stays_within_half_precision_and_says_what_it_computed_in(
    tmp_path: Path, build_tiny: Callable[..., Path], random_images: Callable, closed_form_depth: Callable
) -> None:
    engine, manifest = load_engine(build_tiny(tmp_path, "onnxruntime:fp16") / backend.ENGINE_FILE)
    images = random_images(1, 32, 48, 3, seed=5)
    expected = closed_form_depth(images)
    error = np.abs(engine.infer(images) - expected) / expected
    assert 1e-6 < error.max() < 2e-3  # fp16's spacing is 1e-3 relative; fp32 would be below 1e-6
    assert manifest.engine is not None
    assert manifest.engine.executed_precision in {"fp32", "fp16"}
    assert engine.info.executed_precision == manifest.engine.executed_precision


def test_executed_precision_is_read_from_the_products_of_a_profile() -> None:
    def event(op: str, dtype: str, dur: int) -> dict[str, object]:
        return {"cat": "Node", "dur": dur, "args": {"op_name": op, "input_type_shape": [{dtype: [1]}]}}

    events = [event("MatMul", "float", 70), event("Attention", "float16", 30), event("Relu", "double", 900)]
    assert backend.executed_precision(events) == "fp32+fp16"
    assert backend.executed_precision(events[1:]) == "fp16"


def test_a_file_that_is_no_graph_is_a_backend_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(BackendError, match=r"cannot load .*broken\.onnx"):
        backend.open_onnx(tmp_path / "broken.onnx")


def test_a_provider_that_the_package_lacks_is_refused(tmp_path: Path, write_graph: Callable[..., Artifact]) -> None:
    if "cuda" in backend._available():
        pytest.skip("the installed package has the CUDA provider")
    graph = Graph(write_graph(tmp_path / "export").path)
    with pytest.raises(UsageError, match="no 'cuda' provider; it has cpu"):
        backend.compile_graph(graph, tmp_path, "fp32", BuildOptions(provider="cuda"))


def test_a_closed_engine_says_so(tmp_path: Path, write_graph: Callable[..., Artifact], random_images: Callable) -> None:
    engine = backend.open_onnx(write_graph(tmp_path).path)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="is closed"):
        engine.infer(random_images(1, 32, 48, 3))
