"""Benchmark measurements: interleaving, warm-up, throughput, and executed precision."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.artifact import load_engine_artifact
from mvde.bench import peaks
from mvde.bench.conditions import Conditions
from mvde.bench.measure import Assessment, BenchOptions, measure_engines
from mvde.bench.report import Report, markdown, rows, settings_of, table
from mvde.errors import UsageError
from mvde.precision import Precision
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def short_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_SIZES", (128,))
    monkeypatch.setattr(peaks, "_SECONDS_PER_SIZE", 0.02)
    monkeypatch.setattr(peaks, "_KERNEL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def blobs(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("bench")
    return [build_tiny(root) / "engine.blob", build_tiny(root, resolution=(64, 64)) / "engine.blob"]


def report_of(found: list, options: BenchOptions, images: list[np.ndarray]) -> Report:
    machine = {"cpu": "x", "cpus": "0", "gpus": []}
    conditions = Conditions(0.2, None, None, None, None, None, ())
    return Report(found, machine, settings_of(options, images, None, None), conditions, 1e10, 50 << 20)


def test_engines_take_turns_and_a_turns_first_frame_is_not_counted(
    blobs: list[Path], random_images: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[int, int]] = []
    infer = DepthRuntime.infer

    def spy(self: DepthRuntime, image: np.ndarray, fit: str = "stretch") -> object:
        order.append(self.info.resolution)
        return infer(self, image, fit)  # type: ignore[arg-type]

    monkeypatch.setattr(DepthRuntime, "infer", spy)
    images = [random_images(50, 60, 3)]
    found = measure_engines([load_engine_artifact(blob) for blob in blobs], images, BenchOptions(num_frames=7))
    small, large = (32, 48), (64, 64)
    # Two frames per turn, the last turn shorter, each after one uncounted frame; then one before each stream.
    turns = ([small] * 3 + [large] * 3) * 3 + [small] * 2 + [large] * 2 + [small, large]
    assert order[-len(turns) :] == turns
    assert [(one.num_frames, one.id, one.executed_precision) for one in found] == [(7, "openvino:fp32", "fp32")] * 2
    warm_ups = [len(one.warm_up.times_ms) for one in found]
    assert order[: sum(warm_ups)] == [small] * warm_ups[0] + [large] * warm_ups[1]
    for one in found:
        assert one.total.mean_ms == pytest.approx(one.pre.mean_ms + one.infer.mean_ms + one.post.mean_ms)
        assert min(one.load_ms, one.first_frame_ms, one.throughput_fps) > 0
        assert one.warm_up.times_ms[0] == one.first_frame_ms
        assert {stage: len(samples) for stage, samples in one.samples_us.items()} == dict.fromkeys(one.samples_us, 7)
        assert np.mean(one.samples_us["infer"]) == pytest.approx(one.infer.mean_ms * 1e3, abs=1), "rounded to 1 µs"


def test_the_table_says_whose_attention_runs_where_an_engine_says_so(
    blobs: list[Path], random_images: Callable
) -> None:
    (plain,) = measure_engines([load_engine_artifact(blobs[0])], [random_images(32, 48, 3)], BenchOptions(num_frames=1))
    assert "attention" not in rows([plain])
    ours = dataclasses.replace(plain, rewrites={"attention": "mvde's AMX kernel, 12 of 12"})
    theirs = dataclasses.replace(plain, rewrites={"attention": "OpenVINO's; there is no libmvde_openvino.so"})
    assert rows([plain, ours, theirs])["attention"] == ["–", "mvde's AMX kernel", "OpenVINO's"]


def test_an_engine_alone_wastes_no_frame(
    blobs: list[Path], random_images: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    infer = DepthRuntime.infer
    monkeypatch.setattr(DepthRuntime, "infer", lambda *arguments: calls.append(1) or infer(*arguments))
    (one,) = measure_engines([load_engine_artifact(blobs[0])], [random_images(50, 60, 3)], BenchOptions(num_frames=7))
    assert len(calls) == len(one.warm_up.times_ms) + 7 + 1, "warm-up, measured frames, one before the stream"


def test_a_short_duration_still_takes_ten_frames(blobs: list[Path], random_images: Callable) -> None:
    num_frames = 0

    def count() -> None:
        nonlocal num_frames
        num_frames += 1

    images = [random_images(50, 60, 3)]
    found = measure_engines([load_engine_artifact(blobs[0])], images, BenchOptions(duration_s=1e-6), on_frame=count)
    assert found[0].num_frames == num_frames == 12, "four turns of three frames, the fewest that hold ten"
    assert len(found[0].warm_up.times_ms) >= 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"duration_s": 0.0}, "positive duration"),
        ({"duration_s": float("nan")}, "positive duration"),
        ({"duration_s": float("inf")}, "positive duration"),
        ({"num_frames": 0}, "positive duration"),
        ({"paced_fps": 0.0}, "positive rate"),
        ({"paced_fps": float("inf")}, "positive rate"),
        ({"num_threads": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(wrong: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BenchOptions(**wrong)


def test_pacing_and_threads_are_measured_when_asked_for(blobs: list[Path], random_images: Callable) -> None:
    options = BenchOptions(duration_s=0.2, num_frames=3, paced_fps=40, num_threads=3)
    (one,) = measure_engines([load_engine_artifact(blobs[0])], [random_images(50, 60, 3)], options)
    assert one.paced is not None
    assert one.concurrent is not None
    assert one.paced.num_frames + one.paced.num_dropped == 8
    assert one.concurrent.num_threads == 3
    assert one.concurrent.num_frames >= 3


def test_arithmetic_is_set_against_the_best_product(blobs: list[Path], random_images: Callable) -> None:
    artifact = load_engine_artifact(blobs[0])
    (without,) = measure_engines([artifact], [random_images(50, 60, 3)], BenchOptions(num_frames=3))
    assert without.efficiency is None, "the manifest does not state the graph's arithmetic"
    counted = dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, num_flops=10**7))
    (one,) = measure_engines([counted], [random_images(50, 60, 3)], BenchOptions(num_frames=3))
    assert one.efficiency is not None
    median_s = float(np.median(one.samples_us["infer"])) / 1e6
    assert one.efficiency.flops_per_s == pytest.approx(1e7 / median_s, rel=0.05)  # samples are rounded to 1 µs
    assert one.efficiency.products == peaks.product_speed(Precision.FP32)


class OnDevice:
    """Engine that reports device times."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.info = engine, engine.info
        self.infer, self.infer_maps, self.layers, self.close = (
            engine.infer,
            engine.infer_maps,
            engine.layers,
            engine.close,
        )
        self.device = self.stream_of = self.enqueue = pytest.fail  # used by the runtime, not by the benchmark

    def device_times_ms(self, images: np.ndarray, count: int) -> list[float]:
        self.infer(images)  # raises on another shape
        return [0.25] * count

    def device_memory_bytes(self) -> int:
        return 3 << 20


def test_a_device_is_asked_for_its_own_times(
    blobs: list[Path], random_images: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = DepthRuntime.load

    def load_on_device(*arguments: Any) -> DepthRuntime:
        runtime = load(*arguments)
        runtime._engine = OnDevice(runtime._engine)
        return runtime

    monkeypatch.setattr(DepthRuntime, "load", load_on_device)
    (one,) = measure_engines([load_engine_artifact(blobs[0])], [random_images(50, 60, 3)], BenchOptions(num_frames=5))
    assert one.on_device is not None
    assert (one.on_device.p50_ms, one.device_memory_bytes) == (0.25, 3 << 20)


def test_engines_are_assessed_while_loaded(blobs: list[Path], random_images: Callable) -> None:
    image = random_images(50, 60, 3)

    def assess(runtime: DepthRuntime) -> Assessment:
        return Assessment({"abs_rel": 0.5}, (runtime.infer(image).depth,))

    found = measure_engines(
        [load_engine_artifact(blob) for blob in blobs], [image], BenchOptions(num_frames=3), assess=assess
    )
    assert [one.assessment.depths[0].shape for one in found] == [(50, 60)] * 2
    plain = report_of(found, BenchOptions(num_frames=3), [image]).to_dict()
    assert plain["engines"][0]["accuracy"] == {"abs_rel": 0.5}
    assert "assessment" not in plain["engines"][0]


def test_the_report_says_what_ran(blobs: list[Path], random_images: Callable) -> None:
    from rich.console import Console

    images, options = [random_images(50, 60, 3)], BenchOptions(num_frames=30)
    found = measure_engines([load_engine_artifact(blobs[0])], images, options)
    report = report_of(found, options, images)
    plain = json.loads(report.to_json())
    assert plain == json.loads(json.dumps(report.to_dict())), "joining lists of numbers changes nothing"
    assert plain["schema_version"] == 2
    assert plain["engines"][0]["total"].keys() == {
        "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms", "jitter_ms",
    }  # fmt: skip
    assert max(map(len, report.to_json().splitlines())) < 400
    assert sum('"infer": [' in line for line in report.to_json().splitlines()) == 1
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table(found))
    for text in (console.export_text(), markdown(report)):
        for words in ("computes in", "fp32", "p99.9", "jitter", "first frame", "memory", "throughput", "tiny 32x48"):
            assert words in text
        assert "age of result" not in text, "rows that no engine has are left out"
    assert "- Warning: the hypervisor gave 20.0% of the CPUs' time to other virtual machines." in markdown(report)


def test_other_frames_have_another_mark(random_images: Callable) -> None:
    one, other = random_images(8, 9, 3, seed=1), random_images(8, 9, 3, seed=2)
    marks = [
        settings_of(BenchOptions(), images, None, None)["frames"] for images in ([one], [other], [one, other], [one])
    ]
    assert marks[0] == marks[3]
    assert len(set(marks)) == 3
