"""Copies, ordering and buffer sharing of a loaded plan, on fakes of a GPU and of TensorRT."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import GraphArtifact
from mvde.contract import OutputRole
from mvde.cuda.array import DeviceView
from mvde.engines.base import DeviceEngine, EngineInfo, StatsEngine
from mvde.engines.tensorrt.engine import TensorRtEngine
from mvde.engines.tensorrt.loaded_plan import LoadedPlan
from mvde.errors import BackendError, IncompatibleEngineError, UsageError
from mvde.manifest import Manifest
from mvde.precision import Precision
from mvde.stats import numpy_patch_stats

_spec = importlib.util.spec_from_file_location("tensorrt_fakes", Path(__file__).with_name("tensorrt_fakes.py"))
assert _spec is not None
fakes = importlib.util.module_from_spec(_spec)
sys.modules["tensorrt_fakes"] = fakes
assert _spec.loader is not None
_spec.loader.exec_module(fakes)

BATCH, HEIGHT, WIDTH = 2, 32, 48
DEPTH_BYTES, STATS_BYTES = 4 * BATCH * HEIGHT * WIDTH, 4 * BATCH * 6 * 3


@pytest.fixture
def manifest(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> Manifest:
    return write_graph(tmp_path, batch=BATCH).manifest


@pytest.fixture
def open_engine(manifest: Manifest, closed_form_depth: Callable) -> Callable[..., tuple[TensorRtEngine, Any]]:
    """Opener of an engine; returns it and its device."""

    def open_on(can_capture: bool = True, with_kernel: bool = True) -> tuple[TensorRtEngine, Any]:
        device = fakes.FakeDevice(can_capture)
        context = fakes.FakeContext(device, (BATCH, HEIGHT, WIDTH, 3), closed_form_depth)
        plan = LoadedPlan(fakes.fake_api(), fakes.FakeEngine(context), Path("engine.plan"), manifest)
        info = EngineInfo(
            "tensorrt:fp16", "tensorrt", Precision.FP16, "fp16", "a GPU", (HEIGHT, WIDTH), BATCH, "10.16.1"
        )
        kernel = fakes.FakeKernel(device) if with_kernel else None
        return TensorRtEngine(plan, device, manifest, info, kernel), device

    return open_on


@pytest.fixture
def images(random_images: Callable[..., np.ndarray]) -> np.ndarray:
    return random_images(BATCH, HEIGHT, WIDTH, 3)


def expected(images: np.ndarray, closed_form_depth: Callable) -> tuple[np.ndarray, np.ndarray]:
    depth = closed_form_depth(images).astype(np.float32)
    return depth, numpy_patch_stats(depth, 16, ("mean", "var", "grad"))


def view(device: Any, images: np.ndarray, **changes: Any) -> DeviceView:
    made = DeviceView(device.put(images), images.shape, None, "uint8")
    return dataclasses.replace(made, **changes)


def test_an_engine_binds_once_runs_once_and_then_captures(open_engine: Callable) -> None:
    engine, device = open_engine()
    assert [entry for entry in device.log if entry != "synchronize"] == [
        "bind image", "bind depth", "engine", "statistics", "engine", "statistics",
    ]  # fmt: skip
    assert engine.graph_note == ""
    device.log.clear()
    engine.infer(np.zeros((BATCH, HEIGHT, WIDTH, 3), np.uint8))
    assert device.log == ["use", "upload", "launch", f"download {DEPTH_BYTES}", "synchronize"]


def test_depth_and_statistics_are_those_of_the_images(
    open_engine: Callable, images: np.ndarray, closed_form_depth: Callable
) -> None:
    engine, _ = open_engine()
    depth, stats = expected(images, closed_form_depth)
    np.testing.assert_array_equal(engine.infer(images), depth)
    both = engine.infer_with_stats(images)
    np.testing.assert_array_equal(both[0], depth)
    np.testing.assert_array_equal(both[1], stats)
    again = engine.infer(images[::-1])
    np.testing.assert_array_equal(both[0], depth)  # the first result is a copy, not the engine's buffer
    np.testing.assert_array_equal(again, depth[::-1])


def test_statistics_alone_bring_nothing_else_back(
    open_engine: Callable, images: np.ndarray, closed_form_depth: Callable
) -> None:
    engine, device = open_engine()
    device.log.clear()
    np.testing.assert_array_equal(engine.patch_stats(images), expected(images, closed_form_depth)[1])
    assert [entry for entry in device.log if entry.startswith("download")] == [f"download {STATS_BYTES}"]


@pytest.mark.parametrize("can_capture", [True, False])
def test_without_a_graph_the_results_are_the_same_and_the_reason_is_known(
    open_engine: Callable, images: np.ndarray, closed_form_depth: Callable, can_capture: bool
) -> None:
    engine, device = open_engine(can_capture)
    np.testing.assert_array_equal(engine.infer(images), expected(images, closed_form_depth)[0])
    assert ("launch" in device.log) is can_capture
    assert ("CAPTURE_UNSUPPORTED" in engine.graph_note) is not can_capture


def test_without_the_kernel_there_are_no_statistics_on_the_gpu(open_engine: Callable, images: np.ndarray) -> None:
    engine, device = open_engine(with_kernel=False)
    assert not engine.has_stats
    assert "statistics" not in device.log
    _, stats = engine.enqueue(view(device, images), engine.stream_of())
    assert stats is None


def test_device_arrays_go_in_and_out_on_the_callers_stream_without_waiting(
    open_engine: Callable, images: np.ndarray, closed_form_depth: Callable
) -> None:
    engine, device = open_engine()
    mine, other = device.create_stream(), device.create_stream()
    device.log.clear()
    results = [
        engine.enqueue(view(device, batch), engine.stream_of(stream.handle))
        for batch, stream in ((images, mine), (images[::-1], other))
    ]
    assert "synchronize" not in device.log
    assert not [entry for entry in device.log if entry.startswith(("upload", "download"))]
    device.synchronize(other)  # waits for the other stream, since both use the engine's buffers
    for (depth, stats), batch, stream in zip(results, (images, images[::-1]), (mine, other), strict=True):
        expected_depth, expected_stats = expected(batch, closed_form_depth)
        np.testing.assert_array_equal(device.array(depth.address, depth.shape, np.float32), expected_depth)
        np.testing.assert_array_equal(device.array(stats.address, stats.shape, np.float32), expected_stats)
        device.log.clear()
        depth.wait_on(stream.handle)
        depth.wait_on(-1)
        assert device.log == []
        depth.wait_on(engine.stream_of().handle)
        assert device.log == ["use", "wait"]
        interface = depth.__cuda_array_interface__
        assert (interface["data"][0], interface["shape"], interface["stream"]) == (
            depth.address,
            depth.shape,
            stream.handle,
        )
        assert interface["typestr"] == "<f4"


def test_a_host_call_after_a_device_call_waits_for_it(
    open_engine: Callable, images: np.ndarray, closed_form_depth: Callable
) -> None:
    engine, device = open_engine()
    mine = device.create_stream()
    depth, _ = engine.enqueue(view(device, images), engine.stream_of(mine.handle))
    np.testing.assert_array_equal(engine.infer(images[::-1]), expected(images[::-1], closed_form_depth)[0])
    np.testing.assert_array_equal(
        device.array(depth.address, depth.shape, np.float32), expected(images, closed_form_depth)[0]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (BATCH, HEIGHT, 64, 3)}, r"takes device images of shape \(2, 32, 48, 3\)"),
        ({"dtype": "float32"}, "dtype uint8, but got .* dtype float32"),
        ({"strides": (9216, 288, 6, 2)}, "expected a contiguous one"),
    ],
)
def test_other_device_arrays_are_refused(
    open_engine: Callable, images: np.ndarray, changes: dict[str, Any], message: str
) -> None:
    engine, device = open_engine()
    with pytest.raises(UsageError, match=message):
        engine.enqueue(view(device, images, **changes), engine.stream_of())


def test_other_host_arrays_are_refused(open_engine: Callable) -> None:
    engine, _ = open_engine()
    with pytest.raises(UsageError, match="takes RGB images of shape"):
        engine.infer(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))


def test_a_benchmark_gets_one_time_per_run_and_the_memory_that_was_taken(
    open_engine: Callable, images: np.ndarray
) -> None:
    engine, _ = open_engine()
    assert engine.device_times_ms(images, 5) == [2.0] * 5  # engine and statistics: two items on the stream
    assert engine.device_memory_bytes() == 3 * BATCH * HEIGHT * WIDTH + DEPTH_BYTES + STATS_BYTES
    assert isinstance(engine, DeviceEngine)
    assert isinstance(engine, StatsEngine)


def test_closing_frees_everything_once(open_engine: Callable, images: np.ndarray) -> None:
    engine, device = open_engine()
    engine.close()
    engine.close()
    assert device.allocations == {}
    with pytest.raises(UsageError, match="is closed"):
        engine.infer(images)


def test_a_run_that_tensorrt_refuses_is_a_backend_error(manifest: Manifest, closed_form_depth: Callable) -> None:
    device = fakes.FakeDevice()
    context = fakes.FakeContext(device, (BATCH, HEIGHT, WIDTH, 3), closed_form_depth)
    plan = LoadedPlan(fakes.fake_api(), fakes.FakeEngine(context), Path("engine.plan"), manifest)
    stream, memory = device.create_stream(), device.allocate(DEPTH_BYTES, fakes.FakeStream(0))
    plan.bind(memory.address, [memory.address])
    context.answers = False
    with pytest.raises(BackendError, match="failed to run the engine: because"):
        plan.execute(stream)


def test_a_plan_with_other_tensors_than_its_manifest_is_refused(
    manifest: Manifest, closed_form_depth: Callable
) -> None:
    context = fakes.FakeContext(fakes.FakeDevice(), (1, HEIGHT, WIDTH, 3), closed_form_depth)
    for engine in (fakes.FakeEngine(context), fakes.FakeEngine(context, "FLOAT")):
        with pytest.raises(IncompatibleEngineError, match="but its manifest states"):
            LoadedPlan(fakes.fake_api(), engine, Path("engine.plan"), manifest)


def test_further_outputs_have_buffers_of_their_own(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], closed_form_depth: Callable, images: np.ndarray
) -> None:
    """The library lists its tensors in an order of its own; a call downloads what it returns and no more."""
    device, roles = fakes.FakeDevice(), (OutputRole.SKY, OutputRole.CONFIDENCE)
    manifest = write_graph(tmp_path, batch=BATCH, roles=roles).manifest
    channels = {"their_sky": 0, "their_confidence": 2}
    others = {name: lambda images, channel=channel: images[..., channel] / 255 for name, channel in channels.items()}
    context = fakes.FakeContext(device, (BATCH, HEIGHT, WIDTH, 3), closed_form_depth, **others)
    plan = LoadedPlan(fakes.fake_api(), fakes.FakeEngine(context), Path("engine.plan"), manifest)
    info = EngineInfo("tensorrt:fp16", "tensorrt", Precision.FP16, "fp16", "a GPU", (HEIGHT, WIDTH), BATCH, "10.16.1")
    engine = TensorRtEngine(plan, device, manifest, info, None)
    maps = engine.infer_maps(images)
    assert list(maps) == [OutputRole.DEPTH, *roles]
    for role, channel in zip(roles, channels.values(), strict=True):
        np.testing.assert_array_equal(maps[role], (images[..., channel] / 255).astype(np.float32))
    device.log.clear()
    np.testing.assert_array_equal(engine.infer(images), maps[OutputRole.DEPTH])
    assert device.log.count(f"download {DEPTH_BYTES}") == 1
    engine.close()
    assert device.allocations == {}


def test_a_plan_without_memory_to_run_says_so(manifest: Manifest, closed_form_depth: Callable) -> None:
    context = fakes.FakeContext(fakes.FakeDevice(), (BATCH, HEIGHT, WIDTH, 3), closed_form_depth)
    engine = fakes.FakeEngine(context)
    engine.create_execution_context = lambda: None
    with pytest.raises(BackendError, match=r"no memory to run .*: because"):
        LoadedPlan(fakes.fake_api(), engine, Path("engine.plan"), manifest)
