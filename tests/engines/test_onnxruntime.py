"""ONNX Runtime engines against closed-form depth, and their reported precision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import GraphArtifact
from mvde.engines.base import BuildOptions
from mvde.engines.onnxruntime import session as sessions
from mvde.engines.onnxruntime.backend import ONNXRUNTIME
from mvde.engines.onnxruntime.compile import ENGINE_FILE, executed_precision
from mvde.engines.onnxruntime.engine import open_onnx
from mvde.engines.onnxruntime.providers import Provider, available_providers
from mvde.engines.onnxruntime.session import AS_WRITTEN, CHECKING, open_session
from mvde.engines.store import load_engine
from mvde.errors import BackendError, MissingDependencyError, UsageError
from mvde.precision import Precision

pytest.importorskip("onnxruntime")


def test_the_reference_computes_the_graph(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], random_images: Callable, closed_form_depth: Callable
) -> None:
    engine = open_onnx(write_graph(tmp_path, batch=2).path, num_threads=1)
    images = random_images(2, 32, 48, 3)
    # A sum of three products per pixel: a few float32 roundings.
    np.testing.assert_allclose(engine.infer(images), closed_form_depth(images), rtol=1e-6)
    assert (engine.info.batch, engine.info.resolution) == (2, (32, 48))


def test_an_fp16_engine_stays_within_half_precision_and_says_what_it_computed_in(
    tmp_path: Path, build_tiny: Callable[..., Path], random_images: Callable, closed_form_depth: Callable
) -> None:
    engine, manifest = load_engine(build_tiny(tmp_path, "onnxruntime:fp16") / ENGINE_FILE)
    images = random_images(1, 32, 48, 3, seed=5)
    expected = closed_form_depth(images)
    error = np.abs(engine.infer(images) - expected) / expected
    assert 1e-6 < error.max() < 2e-3  # fp16's spacing is 1e-3 relative; fp32 would be below 1e-6
    assert manifest.engine.executed_precision in {"fp32", "fp16"}
    assert engine.info.executed_precision == manifest.engine.executed_precision


def test_executed_precision_is_read_from_the_products_of_a_profile() -> None:
    def event(op: str, dtype: str, dur: int) -> dict[str, object]:
        return {"cat": "Node", "dur": dur, "args": {"op_name": op, "input_type_shape": [{dtype: [1]}]}}

    events = [event("MatMul", "float", 70), event("Attention", "float16", 30), event("Relu", "double", 900)]
    assert executed_precision(events) == "fp32+fp16"
    assert executed_precision(events[1:]) == "fp16"


def test_a_file_that_is_no_graph_is_a_backend_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(BackendError, match=r"cannot load .*broken\.onnx"):
        open_onnx(tmp_path / "broken.onnx")


@pytest.mark.parametrize(
    ("provider", "message"), [("cuda", "no 'cuda' provider; it has cpu"), ("gpu", "expected tens")]
)
def test_a_provider_that_the_package_lacks_is_refused(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], provider: str, message: str
) -> None:
    if Provider.CUDA in available_providers():
        pytest.skip("the installed package has the CUDA provider")
    manifest, options = write_graph(tmp_path).manifest, BuildOptions(settings={"provider": provider})
    with pytest.raises(UsageError, match=message):
        ONNXRUNTIME.check_source(manifest, Precision.FP32, options, tmp_path)


@pytest.mark.parametrize("settings", [sessions.SessionSettings(num_threads=1), CHECKING, AS_WRITTEN])
def test_a_session_of_a_file_and_of_its_bytes_computes_the_graph(
    tmp_path: Path,
    write_graph: Callable[..., GraphArtifact],
    random_images: Callable,
    closed_form_depth: Callable,
    settings: sessions.SessionSettings,
) -> None:
    path, images = write_graph(tmp_path).path, random_images(1, 32, 48, 3)
    for model in (path, path.read_bytes()):
        (depth,) = open_session(model, settings).run(["depth"], {"image": images})
        np.testing.assert_allclose(depth, closed_form_depth(images), rtol=1e-6)


def test_every_setting_of_a_session_reaches_the_library() -> None:
    settings = sessions.SessionSettings(
        num_threads=3,
        optimization="basic",
        is_spinning=False,
        has_arena=False,
        is_prepacked=False,
        has_memory_pattern=False,
        takes_signed_int8=True,
        log_level=4,
        profile_prefix="profile",
    )
    library = sessions.onnxruntime_library()
    options = sessions._session_options(library, settings)
    assert (options.intra_op_num_threads, options.log_severity_level) == (3, 4)
    assert options.graph_optimization_level == library.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern, options.enable_profiling) == (False, False, True)
    entries = ("intra_op.allow_spinning", "disable_prepacking", "qdqisint8allowed")
    assert [options.get_session_config_entry(f"session.{entry}") for entry in entries] == ["0", "1", "1"]


def test_errors_name_the_graph_and_what_a_missing_library_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="cannot load the typed graph: "):
        open_session(b"not protobuf", AS_WRITTEN, what="the typed graph")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"writing a typed graph.*'mvde\[export\]'"):
        open_session(b"", AS_WRITTEN, extra="export", purpose="writing a typed graph")


def test_a_closed_engine_says_so(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], random_images: Callable
) -> None:
    engine = open_onnx(write_graph(tmp_path).path)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="is closed"):
        engine.infer(random_images(1, 32, 48, 3))
