"""TensorRT on a real GPU: build, parity proof, loading, host and device arrays, CUDA graphs and caches."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mvde
from mvde.artifact import GraphArtifact, load_engine_artifact, write_manifest
from mvde.cuda.gpu import find_gpu
from mvde.engines.base import BuildOptions, EngineId
from mvde.engines.build import LAYERS_FILE, build_engine
from mvde.engines.proof import prove_engine
from mvde.engines.store import load_engine
from mvde.errors import IncompatibleEngineError
from mvde.export.precision import lower_graph
from mvde.precision import Precision
from mvde.stats import numpy_patch_stats

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU")]

BACKENDS = [
    pytest.param(
        backend,
        marks=pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed"),
    )
    for backend, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx"))
]
PRECISIONS = {
    Precision.FP32: 1e-5,
    Precision.FP16: 2e-3,
}  # a sum of three products: float32 rounding, and one fp16 spacing


@pytest.fixture(scope="module", params=BACKENDS)
def built(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    write_graph: Callable,
    random_images: Callable,
) -> Callable[..., Path]:
    """Builder of an engine of the tiny graph; returns its folder."""
    root = tmp_path_factory.mktemp("gpu")
    source: GraphArtifact = write_graph(root / "export")

    def build(precision: Precision = Precision.FP32, **options: Any) -> Path:
        engine_id = EngineId(request.param, precision)
        chosen = BuildOptions(accept_known_bad=True, **options)
        images = random_images(2, 32, 48, 3)
        report = build_engine(source, engine_id, images, root=root / "engines", options=chosen, lower_graph=lower_graph)
        return report.folder

    return build


@pytest.mark.parametrize("precision", PRECISIONS)
def test_depth_and_statistics_are_those_of_the_graph(
    built: Callable[..., Path], random_images: Callable, closed_form_depth: Callable, precision: Precision
) -> None:
    engine, manifest = load_engine(built(precision) / "engine.plan")
    gpu = find_gpu()
    assert gpu is not None
    assert manifest.parity.measured_on is not None
    assert manifest.parity.measured_on.gpu == gpu.name
    images = random_images(1, 32, 48, 3, seed=7)
    depth, stats = engine.infer_with_stats(images)
    np.testing.assert_allclose(depth, closed_form_depth(images), rtol=PRECISIONS[precision])
    np.testing.assert_allclose(stats, numpy_patch_stats(depth, 16, manifest.stats), rtol=6e-7, atol=1e-9)
    np.testing.assert_array_equal(engine.patch_stats(images), stats)
    np.testing.assert_array_equal(engine.infer(images), depth)
    assert engine.graph_note == ""
    assert len(engine.device_times_ms(images, 3)) == 3
    assert engine.device_memory_bytes() > 0
    engine.close()


def test_the_layers_are_stored_and_say_what_they_compute_in(built: Callable[..., Path]) -> None:
    folder = built(Precision.FP16)
    assert json.loads((folder / LAYERS_FILE).read_text())["Layers"]


def test_rebuilds_agree(built: Callable[..., Path]) -> None:
    assert (built(Precision.FP16, num_builds=3) / "engine.plan").is_file()


def test_device_frames_of_cuda_core_go_in_and_out(
    built: Callable[..., Path], random_images: Callable, closed_form_depth: Callable
) -> None:
    image = random_images(60, 80, 3, seed=3)
    with mvde.DepthRuntime.load(built() / "engine.plan") as runtime:
        device = runtime.engine.device
        stream = device.create_stream()
        frame = _on_device(device, image, stream)
        result = runtime.infer_device(frame, stream=stream)
        expected = runtime.infer(image)
        stats = _to_host(device, result.stats, stream)
        np.testing.assert_array_equal(stats[0], expected.stats)
        depth = _to_host(device, result.depth, stream)
        assert depth.shape == (1, 32, 48)
        assert result.depth.__dlpack_device__() == (2, 0)


def test_torch_takes_and_gives_without_a_copy(built: Callable[..., Path], random_images: Callable) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    image = random_images(32, 48, 3, seed=4)
    with mvde.DepthRuntime.load(built() / "engine.plan") as runtime:
        stream = torch.cuda.Stream()
        result = runtime.infer_device(torch.from_numpy(image).cuda(), stream=stream)
        with torch.cuda.stream(stream):
            depth = torch.from_dlpack(result.depth)
        assert depth.data_ptr() == result.depth.address
        np.testing.assert_array_equal(depth.cpu().numpy()[0], runtime.engine.infer(image[None])[0])


def test_an_engine_of_another_gpu_is_refused(built: Callable[..., Path]) -> None:
    plan = built() / "engine.plan"
    manifest = load_engine_artifact(plan).manifest
    assert manifest.engine.cuda is not None
    cuda = dataclasses.replace(manifest.engine.cuda, compute_capabilities=("5.2",))
    write_manifest(dataclasses.replace(manifest, engine=dataclasses.replace(manifest.engine, cuda=cuda)), plan)
    with pytest.raises(IncompatibleEngineError, match=r"built for compute capability 5\.2"):
        load_engine(plan)
    write_manifest(manifest, plan)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_an_engine_that_was_built_without_a_device_is_proved_here_and_keeps_its_cache(
    tmp_path: Path, write_graph: Callable, random_images: Callable
) -> None:
    gpu = find_gpu()
    assert gpu is not None
    options = BuildOptions(without_device=True, settings={"compute_capability": gpu.compute_capability})
    source, images = write_graph(tmp_path / "export"), random_images(2, 32, 48, 3)
    folder = build_engine(
        source, EngineId("tensorrt-rtx", Precision.FP32), images, root=tmp_path / "engines", options=options
    ).folder
    with pytest.raises(IncompatibleEngineError, match="not measured: no device"):
        load_engine(folder / "engine.plan")
    assert prove_engine(folder).parity.max_rel < 1e-5
    engine, _ = load_engine(folder / "engine.plan")
    engine.close()
    assert (folder / "engine.runtime-cache").is_file()


def _on_device(device: Any, image: np.ndarray, stream: Any) -> Any:
    """Frame of another library in device memory, with both array protocols."""
    from mvde.cuda.array import DeviceArray

    staging = device.pinned(image.shape, np.uint8)
    np.copyto(staging.array, image)
    buffer = device.allocate(image.nbytes, stream)
    device.upload(buffer.address, staging.array, stream)
    device.synchronize(stream)
    return DeviceArray(buffer, image.shape, int(stream.handle), "uint8")


def _to_host(device: Any, array: Any, stream: Any) -> np.ndarray:
    staging = device.pinned(array.shape, np.float32)
    device.download(staging.array, array.address, stream)
    device.synchronize(stream)
    return staging.array.copy()
