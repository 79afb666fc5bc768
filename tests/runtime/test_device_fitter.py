"""DepthRuntime over an engine on a fake GPU in host memory: which steps run on the device."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mvde.artifact import GraphArtifact
from mvde.camera import Camera
from mvde.contract import DepthKind, FocalConvention
from mvde.cuda.array import DeviceView, check_dense
from mvde.engines.base import EngineInfo
from mvde.engines.tensorrt.engine import TensorRtEngine
from mvde.engines.tensorrt.loaded_plan import LoadedPlan
from mvde.errors import ImageError, UsageError
from mvde.precision import Precision
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.device_fitter import DeviceFitter, enqueue_frame
from mvde.runtime.placement import Fit, fit_image, place
from mvde.stats import numpy_patch_stats

_path = Path(__file__).parents[1] / "engines" / "tensorrt_fakes.py"
_spec = importlib.util.spec_from_file_location("tensorrt_fakes_of_runtime", _path)
assert _spec is not None
fakes = importlib.util.module_from_spec(_spec)
sys.modules["tensorrt_fakes_of_runtime"] = fakes
assert _spec.loader is not None
_spec.loader.exec_module(fakes)

HEIGHT, WIDTH = 32, 48


class FakeResizer:
    """Fake resizing kernel: Pillow's resize, to which the real one is bit-identical, of the frame at its address."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def enqueue(self, params: Any, stream: Any) -> None:
        box = (params.box_height, params.box_width)
        assert box == (HEIGHT, WIDTH)
        rows = self.device.array(params.source, (self.height, params.source_pitch), np.uint8)
        frame = rows[:, : 3 * self.width].reshape(self.height, self.width, 3)
        out = self.device.array(params.target, (HEIGHT, WIDTH, 3), np.uint8)
        placement = place((self.height, self.width), (HEIGHT, WIDTH), self.fit)

        def resize() -> None:
            out[...] = fit_image(frame, placement)

        self.device.submit(stream, "resize", resize)


class Foreign:
    """Array of another library in device memory."""

    def __init__(self, device: Any, image: np.ndarray, pitch: int | None = None) -> None:
        height, width, _ = image.shape
        self.pitch = pitch or 3 * width
        padded = np.zeros((height, self.pitch), np.uint8)
        padded[:, : 3 * width] = image.reshape(height, -1)
        self.view = DeviceView(device.put(padded), image.shape, (self.pitch, 3, 1), "uint8")


@pytest.fixture
def on_gpu(tmp_path: Path, write_graph: Callable[..., GraphArtifact], closed_form_depth: Callable) -> Any:
    return load_on_gpu(write_graph(tmp_path).manifest, closed_form_depth)


def load_on_gpu(manifest: Any, closed_form_depth: Callable, **options: Any) -> Any:
    """Runtime with ``options``, engine with the manifest's columns, and fake device."""
    device = fakes.FakeDevice()
    context = fakes.FakeContext(device, (1, HEIGHT, WIDTH, 3), closed_form_depth)
    plan = LoadedPlan(fakes.fake_api(), fakes.FakeEngine(context), Path("engine.plan"), manifest)
    info = EngineInfo("tensorrt:fp16", "tensorrt", Precision.FP16, "fp16", "a GPU", (HEIGHT, WIDTH), 1, "10.16.1")
    engine = TensorRtEngine(plan, device, manifest, info, fakes.FakeKernel(device))
    return DepthRuntime(engine, manifest, **options), engine, device


@pytest.fixture
def image(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(60, 80, 3)


def _expected(image: np.ndarray, fit: str, closed_form_depth: Callable) -> tuple[np.ndarray, np.ndarray]:
    fitted = fit_image(image, place(image.shape[:2], (HEIGHT, WIDTH), fit))
    depth = closed_form_depth(fitted[None]).astype(np.float32)
    return depth[0], numpy_patch_stats(depth, 16, ("mean", "var", "grad"))[0]


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_statistics_come_from_the_gpu_and_alone_where_depth_is_not_wanted(
    on_gpu: Any, image: np.ndarray, closed_form_depth: Callable, fit: str
) -> None:
    runtime, _, device = on_gpu
    _, stats = _expected(image, fit, closed_form_depth)
    np.testing.assert_array_equal(runtime.infer(image, fit).stats, stats)
    device.log.clear()
    np.testing.assert_array_equal(runtime.patch_stats(image, fit), stats)
    assert [entry for entry in device.log if entry.startswith("download")] == [f"download {stats.nbytes}"]
    batch = runtime.patch_stats(np.stack([image, image[::-1]]), fit)
    assert batch.shape == (2, *stats.shape)
    np.testing.assert_array_equal(batch[0], stats)


def test_the_bars_of_a_letterbox_are_cleared_on_the_cpu(on_gpu: Any, random_images: Callable) -> None:
    runtime, _, _ = on_gpu
    tall = random_images(96, 48, 3)  # 16 of 48 input columns: two of three patches are padding
    result = runtime.infer(tall, "letterbox")
    columns = result.stats.reshape(2, 3, 3)
    assert (columns[:, [0, 2]] == 0).all()
    assert (columns[:, 1, 0] > 0).all()
    np.testing.assert_array_equal(runtime.patch_stats(tall, "letterbox"), result.stats)


def test_the_engine_computes_the_columns_it_was_loaded_with_and_the_cpu_any_others(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], image: np.ndarray, closed_form_depth: Callable
) -> None:
    names = ("valid", "max")
    manifest = dataclasses.replace(write_graph(tmp_path).manifest, stats=names)
    fitted = fit_image(image, place(image.shape[:2], (HEIGHT, WIDTH), "stretch"))
    expected = numpy_patch_stats(closed_form_depth(fitted[None]).astype(np.float32), 16, names)[0]
    for columns, num_bytes in ((None, expected.nbytes), (("max", "valid"), 4 * HEIGHT * WIDTH)):
        runtime, engine, device = load_on_gpu(manifest, closed_form_depth, stats=columns)
        assert engine.stat_names == names
        device.log.clear()
        found = runtime.patch_stats(image)
        np.testing.assert_allclose(found if columns is None else found[:, ::-1], expected, rtol=1e-6)
        assert [entry for entry in device.log if entry.startswith("download")] == [f"download {num_bytes}"]


@pytest.fixture
def of_canonical_camera(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> Any:
    """Manifest of metres for a camera whose focal length is half of its width."""
    return dataclasses.replace(
        write_graph(tmp_path).manifest,
        depth_kind=DepthKind.METRIC_FOCAL,
        canonical_focal=0.5,
        focal_convention=FocalConvention.HORIZONTAL,
    )


def camera_of_width(factor: float, size: tuple[int, int] = (60, 80)) -> Camera:
    focal = factor * size[1]
    return Camera(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2, size)


def infer_device(runtime: DepthRuntime, device: Any, image: np.ndarray, **options: Any) -> tuple[Any, Any, Any]:
    """Result of a frame in device memory, and host copies of its depth and statistics."""
    runtime._device_fitter = resizing_fitter(device, image, options.get("fit") or "stretch")
    stream = device.create_stream()
    result = runtime.infer_device(Foreign(device, image), stream=stream.handle, **options)
    device.synchronize(stream)
    arrays = (result.depth, result.stats)
    depth, stats = (None if one is None else device.array(one.address, one.shape, np.float32) for one in arrays)
    return result, depth, stats


def resizing_fitter(device: Any, image: np.ndarray, fit: str) -> DeviceFitter:
    resizer = FakeResizer(device)
    resizer.height, resizer.width, resizer.fit = image.shape[-3], image.shape[-2], fit
    return DeviceFitter(device, (HEIGHT, WIDTH), resizer, scaling=fakes.FakeKernel(device))


@pytest.fixture
def foreign_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvde.runtime.depth.view_of", lambda array, stream: array.view)


def test_the_camera_of_a_frame_scales_statistics_of_the_gpu(
    of_canonical_camera: Any, image: np.ndarray, closed_form_depth: Callable
) -> None:
    runtime, _, _ = load_on_gpu(of_canonical_camera, closed_form_depth, camera=camera_of_width(1.0))
    _, stats = _expected(image, "stretch", closed_form_depth)
    np.testing.assert_allclose(runtime.infer(image).stats, stats * [2, 4, 2], rtol=1e-6)
    np.testing.assert_allclose(runtime.patch_stats(image), stats * [2, 4, 2], rtol=1e-6)


@pytest.mark.usefixtures("foreign_arrays")
@pytest.mark.parametrize(("given", "factor"), [(None, 2), (camera_of_width(0.75), 1.5), (camera_of_width(0.5), 1)])
def test_results_in_device_memory_are_for_the_frames_camera(
    of_canonical_camera: Any, image: np.ndarray, closed_form_depth: Callable, given: Camera | None, factor: float
) -> None:
    runtime, _, device = load_on_gpu(of_canonical_camera, closed_form_depth, camera=camera_of_width(1.0))
    result, depth, stats = infer_device(runtime, device, image, camera=given)
    expected_depth, expected_stats = _expected(image, "stretch", closed_form_depth)
    assert (result.camera_factor, result.camera_assumed) == (factor, False)
    assert result.placement == runtime.placement((60, 80))
    np.testing.assert_allclose(depth[0], expected_depth * factor, rtol=1e-6)
    np.testing.assert_allclose(stats[0], expected_stats * [factor, factor**2, factor], rtol=1e-5)
    np.testing.assert_allclose(stats[0], runtime.infer(image, camera=given).stats, rtol=1e-5)


@pytest.mark.usefixtures("foreign_arrays")
@pytest.mark.parametrize("kind", [DepthKind.METRIC_FOCAL, DepthKind.INVERSE_CANONICAL])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_an_assumed_camera_is_of_the_whole_frame_in_device_memory_too(
    of_canonical_camera: Any, image: np.ndarray, closed_form_depth: Callable, kind: DepthKind, fit: str
) -> None:
    tall = np.ascontiguousarray(image.swapaxes(0, 1))  # crop takes half of its height
    manifest = dataclasses.replace(
        of_canonical_camera, depth_kind=kind, unit=kind.unit, focal_convention=FocalConvention.GEOMETRIC
    )
    runtime, _, device = load_on_gpu(manifest, closed_form_depth)
    result, depth, stats = infer_device(runtime, device, tall, fit=fit)
    assert result.camera_assumed
    scale = result.camera_factor if kind is DepthKind.METRIC_FOCAL else 1 / result.camera_factor
    assert (scale == 1) == (fit == "stretch")
    np.testing.assert_allclose(depth[0], _expected(tall, fit, closed_form_depth)[0] * scale, rtol=1e-6)
    on_host = runtime.infer(tall, fit)
    assert result.camera_factor == on_host.camera_factor
    np.testing.assert_allclose(stats[0], on_host.stats, rtol=1e-5)


@pytest.mark.usefixtures("foreign_arrays")
def test_scaled_results_replace_the_engines_and_are_waited_for(
    of_canonical_camera: Any, image: np.ndarray, closed_form_depth: Callable
) -> None:
    runtime, _, device = load_on_gpu(of_canonical_camera, closed_form_depth, camera=camera_of_width(1.0))
    counts = [len(device.allocations)]
    for camera in (camera_of_width(0.5), None):
        result, depth, _ = infer_device(runtime, device, image, camera=camera)
        counts.append(len(device.allocations))
    assert counts[2] - counts[1] == counts[1] - counts[0]
    mine = device.create_stream()
    runtime._device_fitter = resizing_fitter(device, image, "stretch")
    pending = runtime.infer_device(Foreign(device, image), stream=device.create_stream().handle)
    pending.depth.wait_on(mine.handle)
    device.synchronize(mine)
    np.testing.assert_array_equal(device.array(pending.depth.address, pending.depth.shape, np.float32), depth)
    assert pending.stats.shape == result.stats.shape


@pytest.mark.usefixtures("foreign_arrays")
def test_depth_is_scaled_where_the_gpu_computes_no_statistics(
    of_canonical_camera: Any, image: np.ndarray, closed_form_depth: Callable
) -> None:
    runtime, engine, device = load_on_gpu(of_canonical_camera, closed_form_depth, camera=camera_of_width(1.0))
    engine._kernel = None
    result, depth, _ = infer_device(runtime, device, image)
    assert result.stats is None
    np.testing.assert_allclose(depth[0], _expected(image, "stretch", closed_form_depth)[0] * 2, rtol=1e-6)


@pytest.mark.usefixtures("foreign_arrays")
def test_a_camera_of_other_frames_is_refused_before_work_is_queued(
    of_canonical_camera: Any, image: np.ndarray, closed_form_depth: Callable
) -> None:
    runtime, _, device = load_on_gpu(of_canonical_camera, closed_form_depth)
    device.log.clear()
    with pytest.raises(UsageError, match="480x640"):
        infer_device(runtime, device, image, camera=camera_of_width(1.0, (480, 640)))
    assert set(device.log) == {"use"}


@pytest.mark.usefixtures("foreign_arrays")
def test_a_batch_at_the_models_resolution_has_one_camera(
    of_canonical_camera: Any, random_images: Callable, closed_form_depth: Callable
) -> None:
    batch = random_images(HEIGHT, WIDTH, 3)[None]
    runtime, _, device = load_on_gpu(
        of_canonical_camera, closed_form_depth, camera=camera_of_width(1.0, (HEIGHT, WIDTH))
    )
    stream = device.create_stream()
    frame = SimpleNamespace(view=DeviceView(device.put(batch), batch.shape, None, "uint8"))
    runtime._device_fitter = resizing_fitter(device, batch, "stretch")
    result = runtime.infer_device(frame, stream=stream.handle)
    device.synchronize(stream)
    depth = device.array(result.depth.address, result.depth.shape, np.float32)
    np.testing.assert_allclose(depth, closed_form_depth(batch) * 2, rtol=1e-6)


@pytest.mark.parametrize("pitch", [None, 256])
def test_a_device_frame_of_any_size_is_resized_and_run_on_the_callers_stream(
    on_gpu: Any, image: np.ndarray, closed_form_depth: Callable, pitch: int | None
) -> None:
    _, engine, device = on_gpu
    fitter = resizing_fitter(device, image, "stretch")
    mine = device.create_stream()
    depth, stats = enqueue_frame(engine, fitter, Foreign(device, image, pitch).view, Fit.STRETCH, mine)
    device.synchronize(mine)
    expected_depth, expected_stats = _expected(image, "stretch", closed_form_depth)
    np.testing.assert_array_equal(device.array(depth.address, depth.shape, np.float32)[0], expected_depth)
    np.testing.assert_array_equal(device.array(stats.address, stats.shape, np.float32)[0], expected_stats)
    held = len(device.allocations)
    enqueue_frame(engine, fitter, Foreign(device, image, pitch).view, Fit.STRETCH, mine)
    device.synchronize(mine)
    assert len(device.allocations) == held + 3  # the frame and the two results; tables are allocated once
    fitter.close()
    assert len(device.allocations) == held + 1


@pytest.mark.parametrize(
    ("shape", "fit", "error", "message"),
    [
        ((60, 80, 4), "stretch", ImageError, r"is \(H, W, 3\) uint8 RGB"),
        ((96, 48, 3), "letterbox", UsageError, "leaves bars"),
        ((60, 80, 3), "squeeze", UsageError, "squeeze"),
    ],
)
@pytest.mark.usefixtures("foreign_arrays")
def test_frames_that_cannot_be_run_on_the_device_say_why(
    on_gpu: Any, shape: tuple[int, ...], fit: str, error: type[Exception], message: str
) -> None:
    runtime, _, device = on_gpu
    frame = SimpleNamespace(view=DeviceView(device.put(np.zeros(shape, np.uint8)), shape, None, "uint8"))
    with pytest.raises(error, match=message):
        runtime.infer_device(frame, fit=fit)


def test_an_engine_on_the_cpu_says_so(engine_folder: Path) -> None:
    with (
        DepthRuntime.load(engine_folder) as runtime,
        pytest.raises(UsageError, match="this is openvino:fp32; use infer"),
    ):
        runtime.infer_device(np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_statistics_alone_of_an_engine_on_the_cpu_are_those_of_infer(engine_folder: Path, image: np.ndarray) -> None:
    with DepthRuntime.load(engine_folder) as runtime:
        np.testing.assert_array_equal(runtime.patch_stats(image, "crop"), runtime.infer(image, "crop").stats)


def test_an_array_that_is_not_in_device_memory_is_refused(on_gpu: Any) -> None:
    runtime, _, _ = on_gpu
    with pytest.raises(UsageError, match="expected an array in device memory"):
        runtime.infer_device([[1, 2, 3]])
    with pytest.raises(UsageError, match="ndarray"):
        runtime.infer_device(np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_strides_of_sides_of_one_do_not_matter() -> None:
    check_dense(DeviceView(1, (1, 4, 3), (999, 3, 1), "uint8"))
    with pytest.raises(UsageError, match=r"strides \(999, 3, 1\)"):
        check_dense(DeviceView(1, (2, 4, 3), (999, 3, 1), "uint8"))
