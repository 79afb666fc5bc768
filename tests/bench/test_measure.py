"""The benchmark measures what it says: distributions, alternation, and what really ran."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import load_artifact
from mvde.bench.measure import Distribution, measure_engines, peak_memory_bytes
from mvde.bench.report import table, to_dict
from mvde.errors import UsageError
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("openvino")


def test_quantiles_are_times_that_occurred() -> None:
    times = [float(value) for value in range(1, 1001)]
    found = Distribution.of(times)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.p99_9_ms, found.max_ms) == (501, 901, 991, 1000, 1000)
    assert found.mean_ms == pytest.approx(500.5)
    assert Distribution.of([1.0, 1.0, 100.0]).p99_ms == 100


@pytest.fixture(scope="module")
def blobs(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("bench")
    return [build_tiny(root) / "engine.blob", build_tiny(root, resolution=(64, 64)) / "engine.blob"]


def test_engines_take_turns(blobs: list[Path], random_images: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    infer = DepthRuntime.infer

    def spy(self: DepthRuntime, image: np.ndarray, fit: str = "stretch") -> object:
        order.append(self.info.resolution)
        return infer(self, image, fit)  # type: ignore[arg-type]

    monkeypatch.setattr(DepthRuntime, "infer", spy)
    images = [random_images(50, 60, 3)]
    found = measure_engines([load_artifact(blob) for blob in blobs], images, num_frames=5)
    assert order[-10:] == [(32, 48), (64, 64)] * 5
    assert [(one.num_frames, one.id, one.executed_precision) for one in found] == [(5, "openvino:fp32", "fp32")] * 2
    for one in found:
        assert one.total.mean_ms == pytest.approx(one.pre.mean_ms + one.infer.mean_ms + one.post.mean_ms)
        assert min(one.load_ms, one.first_frame_ms, one.throughput_fps) > 0


def test_a_short_duration_still_takes_ten_frames(blobs: list[Path], random_images: Callable) -> None:
    num_frames = 0

    def count() -> None:
        nonlocal num_frames
        num_frames += 1

    images = [random_images(50, 60, 3)]
    found = measure_engines([load_artifact(blobs[0])], images, duration_s=1e-6, on_frame=count)
    assert found[0].num_frames == num_frames == 10


@pytest.mark.parametrize("wrong", [{"duration_s": 0.0}, {"duration_s": float("nan")}, {"num_frames": 0}])
def test_a_duration_that_is_not_positive_is_refused(blobs: list[Path], random_images: Callable, wrong: dict) -> None:
    with pytest.raises(UsageError, match="positive duration"):
        measure_engines([load_artifact(blobs[0])], [random_images(50, 60, 3)], **wrong)


def test_the_report_says_what_ran(blobs: list[Path], random_images: Callable) -> None:
    from rich.console import Console

    found = measure_engines([load_artifact(blobs[0])], [random_images(50, 60, 3)], num_frames=3)
    plain = json.loads(json.dumps(to_dict(found, {"cpu": "x"}, peak_memory_bytes())))
    assert plain["schema_version"] == 1
    assert plain["engines"][0]["total"].keys() == {"mean_ms", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"}
    assert plain["peak_memory_bytes"] > 10 << 20
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table(found))
    text = console.export_text()
    for label in ("computes in", "fp32", "p99.9", "first frame", "memory", "throughput", "tiny 32x48"):
        assert label in text
