"""ONNX Runtime's GPU providers without a GPU: options, cache folder, and operators that fell back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvde.engines.onnxruntime import compile as onnxruntime_compile
from mvde.engines.onnxruntime.providers import Provider, check_all_products_on_provider, provider_options
from mvde.errors import BackendError
from mvde.precision import Precision


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "graph.onnx").write_bytes(b"a graph")
    return tmp_path / "graph.onnx"


def test_tensorrt_keeps_its_engines_in_a_folder_for_the_graph_and_the_version(graph: Path, cache: Path) -> None:
    options = provider_options(Provider.TENSORRT, Precision.FP16, graph, "1.32.0")
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir()
    assert folder.is_relative_to(cache / "mvde")
    assert options["trt_timing_cache_path"] == str(folder)
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert provider_options(Provider.TENSORRT, Precision.FP16, graph, "1.33.0")["trt_engine_cache_path"] != str(folder)
    graph.write_bytes(b"another graph")
    assert provider_options(Provider.TENSORRT, Precision.FP16, graph, "1.32.0")["trt_engine_cache_path"] != str(folder)


@pytest.mark.parametrize(
    ("precision", "enabled"),
    [
        (Precision.FP32, set()),
        (Precision.FP16, {"trt_fp16_enable"}),
        (Precision.INT8, {"trt_int8_enable", "trt_fp16_enable"}),
    ],
)
def test_tensorrt_may_use_the_precisions_that_the_graph_has(
    graph: Path, precision: Precision, enabled: set[str]
) -> None:
    options = provider_options(Provider.TENSORRT, precision, graph, "1")
    assert {key for key in options if key.endswith("_enable") and "cache" not in key} == enabled


def test_fp32_is_fp32_on_cuda_too_and_the_cpu_gets_no_options(graph: Path) -> None:
    assert provider_options(Provider.CUDA, Precision.FP32, graph, "1") == {"use_tf32": "0"}
    assert provider_options(Provider.CPU, Precision.FP32, graph, "1") == {}


def _event(op: str, provider: str, name: str = "node_MatMul_7_kernel_time") -> dict[str, Any]:
    return {"cat": "Node", "name": name, "args": {"op_name": op, "provider": provider}}


def test_a_product_that_ran_on_another_provider_is_named() -> None:
    events = [_event("MatMul", "CPUExecutionProvider"), _event("Reshape", "CPUExecutionProvider", "shape")]
    with pytest.raises(BackendError, match=r"ran 1 products elsewhere .*node_MatMul_7 \(CPUExecutionProvider\)"):
        check_all_products_on_provider(events, "CUDAExecutionProvider", {"MatMul"})
    check_all_products_on_provider(events, "CPUExecutionProvider", {"MatMul"})
    check_all_products_on_provider(events[1:], "CUDAExecutionProvider", {"MatMul"})


def test_a_real_profile_says_which_provider_ran_a_product(
    tmp_path: Path, build_tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key read by the check exists in a real profile."""
    pytest.importorskip("onnxruntime")
    seen: list[Any] = []
    check = onnxruntime_compile.check_all_products_on_provider

    def spy(profile: list[dict[str, Any]], provider: str, products: set[str]) -> None:
        seen.extend(event["args"]["provider"] for event in profile if event.get("args", {}).get("op_name") == "Conv")
        check(profile, provider, products)

    monkeypatch.setattr(onnxruntime_compile, "check_all_products_on_provider", spy)
    build_tiny(tmp_path, "onnxruntime:fp32")
    assert set(seen) == {"CPUExecutionProvider"}
