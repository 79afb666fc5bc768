"""OpenVINO engines against closed-form depth, from several threads, and in precisions the CPU lacks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import GraphArtifact
from mvde.assets import shipped_checkpoint
from mvde.engines.base import BuildOptions, Graph, Support
from mvde.engines.machine import cpu_features
from mvde.engines.openvino import attention, library
from mvde.engines.openvino import compile as openvino_compile
from mvde.engines.openvino.backend import OPENVINO
from mvde.engines.openvino.compile import ENGINE_FILE, compile_graph
from mvde.engines.openvino.engine import import_blob
from mvde.engines.openvino.library import executed_precision, shared_core
from mvde.engines.store import load_engine
from mvde.errors import BackendError, IncompatibleEngineError, UsageError
from mvde.precision import Precision

pytest.importorskip("openvino")


def test_an_engine_computes_the_graph(
    engine_folder: Path, random_images: Callable, closed_form_depth: Callable
) -> None:
    engine, manifest = load_engine(engine_folder / ENGINE_FILE)
    images = random_images(1, 32, 48, 3, seed=3)
    np.testing.assert_allclose(engine.infer(images), closed_form_depth(images), rtol=1e-6)
    assert engine.info.executed_precision == "fp32"
    assert manifest.engine.library_version == OPENVINO.library_version()


def test_a_result_is_not_overwritten_by_the_next_call(engine_folder: Path, random_images: Callable) -> None:
    engine, _ = load_engine(engine_folder / ENGINE_FILE)
    first = engine.infer(random_images(1, 32, 48, 3, seed=1))
    kept = first.copy()
    engine.infer(random_images(1, 32, 48, 3, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_see_each_others_frames(
    engine_folder: Path, random_images: Callable, closed_form_depth: Callable
) -> None:
    engine, _ = load_engine(engine_folder / ENGINE_FILE)
    frames = [random_images(1, 32, 48, 3, seed=seed) for seed in range(64)]
    with ThreadPoolExecutor(4) as pool:
        for frame, depth in zip(frames, pool.map(engine.infer, frames), strict=True):
            np.testing.assert_allclose(depth, closed_form_depth(frame), rtol=1e-6)


@pytest.mark.parametrize(
    ("precision", "hardware"),
    [
        (Precision.BF16, {"avx512_bf16", "amx_bf16", "bf16"}),
        (Precision.FP16, {"avx512_fp16", "amx_fp16", "asimdhp"}),
    ],
)
def test_a_precision_that_the_cpu_lacks_is_not_offered(precision: Precision, hardware: set[str]) -> None:
    if hardware & set(cpu_features()):
        pytest.skip(f"this CPU has {precision}")
    answer = OPENVINO.support(precision)
    assert not answer.works
    assert "OpenVINO would compute in fp32" in answer.note


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graph of the shipped model at a small resolution."""
    pytest.importorskip("torch")
    from mvde.export.onnx import export_onnx
    from mvde.model import DepthModel

    (path,) = export_onnx(DepthModel.load(shipped_checkpoint()), [(64, 96)], tmp_path_factory.mktemp("network"))
    return path


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP16])
def test_a_precision_that_the_cpu_has_is_what_runs(
    precision: Precision, network: Path, tmp_path: Path, random_images: Callable
) -> None:
    """Check the executed graph, and that the result differs from fp32 by that precision's rounding."""
    if not OPENVINO.support(precision).works:
        pytest.skip(f"this CPU has no {precision}")
    images = random_images(1, 64, 96, 3)
    depths = {}
    for wanted in (Precision.FP32, precision):
        folder = tmp_path / wanted
        folder.mkdir(exist_ok=True)
        compiled = compile_graph(Graph(network), folder, wanted, BuildOptions())
        assert compiled.executed_precision == wanted
        loaded = import_blob(folder / ENGINE_FILE, compiled.options)
        assert executed_precision(loaded) == wanted
        depths[wanted] = np.array(loaded(images)[0])
    change = np.abs(depths[precision] / depths["fp32"] - 1).mean()
    low, high = {"fp32": (0, 0), "bf16": (1e-4, 2e-2), "fp16": (1e-5, 2e-3)}[precision]
    assert low <= change <= high


@pytest.fixture(scope="module")
def quantized(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The network with int8 products, calibrated and validated on photographs."""
    from mvde.export.precision import LowerOptions, lower_graph
    from mvde.export.range_method import RangeMethod

    return lower_graph(
        Graph(network), Precision.INT8, tmp_path_factory.mktemp("quantized"), LowerOptions(method=RangeMethod.MINMAX)
    )


@pytest.mark.parametrize("rest", [Precision.FP32, Precision.BF16])
def test_an_int8_engine_says_what_it_computes_in_around_its_products(
    rest: Precision, network: Path, quantized: Graph, tmp_path: Path, random_images: Callable
) -> None:
    """Check the executed graph, and that the rest's rounding is visible but below the quantisation error."""
    if not OPENVINO.support(rest).works:
        pytest.skip(f"this CPU has no {rest}")
    images = random_images(1, 64, 96, 3, seed=3)
    depth = {}
    for wanted in {Precision.FP32, rest}:
        folder = tmp_path / wanted
        folder.mkdir()
        compiled = compile_graph(quantized, folder, Precision.INT8, BuildOptions(rest=wanted))
        assert compiled.executed_precision == f"int8+{wanted}"
        depth[wanted] = np.array(import_blob(folder / ENGINE_FILE, compiled.options)(images)[0])
    exact = shared_core().compile_model(str(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    quantisation = np.abs(depth["fp32"] / np.array(exact(images)[0]) - 1).mean()
    change = np.abs(depth[rest] / depth["fp32"] - 1).mean()
    assert quantisation > 1e-4
    assert change == 0 if rest == "fp32" else 1e-5 < change < 2 * quantisation


def test_the_rest_of_an_int8_engine_is_bf16_where_the_cpu_has_it(
    quantized: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = "bf16" if OPENVINO.support(Precision.BF16).works else "fp32"
    compiled = compile_graph(quantized, tmp_path, Precision.INT8, BuildOptions())
    assert compiled.executed_precision == f"int8+{rest}"
    if rest == "bf16" and not attention.unavailable(attention.AMX, OPENVINO.library_version()):
        assert compiled.rewrites["attention"].startswith("mvde's AMX kernel")
    monkeypatch.setattr(openvino_compile, "arithmetic", lambda precision: Support(precision == "fp32", "pretended"))
    assert compile_graph(quantized, tmp_path, Precision.INT8, BuildOptions()).executed_precision == "int8+fp32"


def test_a_fallback_of_the_library_is_not_silent(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO silently falls back to fp32 in a precision that the CPU lacks; the engine must be refused."""
    if OPENVINO.support(Precision.BF16).works:
        pytest.skip("this CPU has bf16")
    with pytest.raises(BackendError, match="asked for bf16 and computes in fp32"):
        compile_graph(Graph(write_graph(tmp_path / "export").path), tmp_path, Precision.BF16, BuildOptions())


def test_a_blob_that_the_library_refuses_names_the_way_out(engine_folder: Path, tmp_path: Path) -> None:
    blob = (engine_folder / ENGINE_FILE).read_bytes()
    (tmp_path / "half.blob").write_bytes(blob[: len(blob) // 2])
    with pytest.raises(IncompatibleEngineError, match="build it again with `mvde build`"):
        import_blob(tmp_path / "half.blob", {})


def test_weights_are_read_where_the_blob_is_mapped(tmp_path: Path) -> None:
    from openvino import Model
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)  # 16 MiB
    images = ops.parameter([1, 2048], np.float32)
    graph = Model([ops.result(ops.matmul(images, ops.constant(weights), False, True))], [images])
    compiled = shared_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (tmp_path / "model.blob").write_bytes(compiled.export_model().getvalue())
    images = np.ones((1, 2048), np.float32)
    expected = np.array(compiled(images)[0])
    before = _anonymous_bytes()
    loaded = import_blob(tmp_path / "model.blob", {"INFERENCE_PRECISION_HINT": "f32"})
    assert _anonymous_bytes() - before < 1.5 * weights.nbytes  # the packed weights; a copy of the blob doubles that
    np.testing.assert_array_equal(loaded(images)[0], expected)


def _anonymous_bytes() -> int:
    """Anonymous memory of this process in bytes, which excludes a mapped blob."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc/self/status")
    return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("RssAnon"))) * 1024


def test_a_closed_engine_says_so(engine_folder: Path, random_images: Callable) -> None:
    engine, _ = load_engine(engine_folder / ENGINE_FILE)
    engine.close()
    with pytest.raises(UsageError, match="is closed"):
        engine.infer(random_images(1, 32, 48, 3))


def test_the_provider_setting_is_not_swallowed(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> None:
    manifest, options = write_graph(tmp_path).manifest, BuildOptions(settings={"provider": "cuda"})
    with pytest.raises(UsageError, match="--set provider=cuda is not for openvino, which takes no settings"):
        OPENVINO.check_source(manifest, Precision.FP32, options, tmp_path)


def test_a_rest_that_the_cpu_does_not_compute_in_is_refused(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "arithmetic", lambda precision: Support(False, "no such arithmetic"))
    options = BuildOptions(rest=Precision.FP16)
    with pytest.raises(BackendError, match="--rest fp16: no such arithmetic"):
        OPENVINO.check_source(write_graph(tmp_path).manifest, Precision.INT8, options, tmp_path)
