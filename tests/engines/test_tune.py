"""Tuning selects the fastest settings, keeps the library's defaults otherwise, and records its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mvde.artifact import GraphArtifact, load_engine_artifact
from mvde.engines import build
from mvde.engines import tune as tuning
from mvde.engines.base import BuildOptions, EngineId
from mvde.engines.openvino import compile as openvino_compile
from mvde.engines.openvino.engine import import_blob
from mvde.engines.openvino.library import arithmetic
from mvde.engines.store import load_engine
from mvde.engines.tune import tune
from mvde.errors import BackendError, UsageError
from mvde.precision import Precision
from mvde.records import TuningCandidate, TuningRecord

IMAGES = np.zeros((3, 4, 6, 3), np.uint8)


class Clock:
    """Virtual clock advanced only by engines, so that tests do not depend on machine load."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tuning, "time", made)
    return made


class TimedEngine:
    """Engine whose latency is a function of its settings."""

    def __init__(self, clock: Clock, seconds: Callable[[], float]) -> None:
        self.info = SimpleNamespace(batch=1)
        self.closed = False
        self._clock, self._seconds = clock, seconds

    def infer(self, images: np.ndarray) -> np.ndarray:
        assert not self.closed
        assert images.shape == (1, 4, 6, 3)
        self._clock.now += self._seconds()
        return np.zeros((1, 4, 6), np.float32)

    def close(self) -> None:
        self.closed = True


Opener = Callable[..., TimedEngine]


@pytest.fixture
def opener(clock: Clock) -> Callable[[Callable[[Mapping[str, Any]], float]], tuple[Opener, list[TimedEngine]]]:
    """Opener of engines with a given latency function, and the list of engines opened."""

    def make(seconds: Callable[[Mapping[str, Any]], float]) -> tuple[Opener, list[TimedEngine]]:
        opened: list[TimedEngine] = []

        def open_engine(settings: Mapping[str, Any]) -> TimedEngine:
            if "refused" in settings:
                raise BackendError("no such setting")
            opened.append(TimedEngine(clock, lambda: seconds(settings)))
            return opened[-1]

        return open_engine, opened

    return make


def test_the_fastest_setting_is_chosen_and_everything_measured_is_told(opener: Callable) -> None:
    open_engine, opened = opener(lambda settings: {"a": 0.004, "b": 0.016}.get(settings.get("mode", ""), 0.008))
    best, candidates = tune(open_engine, [{"mode": "a"}, {"mode": "b"}, {"refused": 1}], IMAGES, 1.0)
    assert best == {"mode": "a"}
    assert [one.settings for one in candidates] == [{}, {"mode": "a"}, {"mode": "b"}, {"refused": 1}]
    assert [one.gain for one in candidates] == [1.0, 2.0, 0.5, None]
    assert [one.median_ms for one in candidates] == [8.0, 4.0, 16.0, None]
    assert candidates[3] == TuningCandidate({"refused": 1}, refused="no such setting")
    assert all(engine.closed for engine in opened)


def test_settings_that_gain_alone_are_kept_together_only_if_that_gains_too(opener: Callable) -> None:
    times = {(): 0.008, ("a",): 0.005, ("b",): 0.006, ("a", "b"): 0.010}
    open_engine, _ = opener(lambda settings: times[tuple(sorted(settings))])
    best, candidates = tune(open_engine, [{"a": 1}, {"b": 1}], IMAGES, 1.0)
    assert best == {"a": 1}
    assert candidates[-1].settings == {"a": 1, "b": 1}
    times["a", "b"] = 0.003
    assert tune(open_engine, [{"a": 1}, {"b": 1}], IMAGES, 1.0)[0] == {"a": 1, "b": 1}


def test_a_gain_inside_the_noise_is_not_believed(opener: Callable) -> None:
    rng = np.random.default_rng(0)
    open_engine, _ = opener(lambda settings: float(rng.uniform(0.002, 0.012)))
    best, candidates = tune(open_engine, [{"a": 1}, {"b": 1}], IMAGES, 1.0)
    assert best == {}
    assert all(one.sure_gain < one.gain for one in candidates[1:])


def test_where_nothing_gains_the_librarys_choice_stands(opener: Callable) -> None:
    open_engine, _ = opener(lambda settings: 0.008 if settings else 0.004)
    assert tune(open_engine, [{"a": 1}], IMAGES, 1.0)[0] == {}


def test_a_default_that_the_library_refuses_is_an_error_not_a_candidate() -> None:
    def refuse(settings: Mapping[str, Any]) -> Any:
        raise BackendError("cannot compile")

    with pytest.raises(BackendError, match="cannot compile"):
        tune(refuse, [{"a": 1}], IMAGES, 0.1)


@pytest.mark.parametrize("budget_s", [0.0, -1.0, float("nan")])
def test_a_budget_must_be_positive(opener: Callable, budget_s: float) -> None:
    with pytest.raises(UsageError, match="positive number of seconds"):
        tune(opener(lambda settings: 0.0)[0], [], IMAGES, budget_s)


@pytest.fixture
def source(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> GraphArtifact:
    return write_graph(tmp_path / "export")


@pytest.mark.parametrize("engine_id", ["openvino:fp32", "onnxruntime:fp32"])
def test_a_tuned_engine_runs_with_the_options_that_its_manifest_states(
    engine_id: str, source: GraphArtifact, random_images: Callable, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip(engine_id.split(":")[0])
    report = build.build_engine(
        source,
        EngineId.parse(engine_id),
        random_images(2, 32, 48, 3),
        root=tmp_path / "engines",
        options=BuildOptions(tune_s=0.05),
    )
    record = report.manifest.engine
    assert record.tuning is not None
    measured = [one for one in record.tuning.candidates if one.median_ms is not None]
    assert measured[0].settings == {}
    assert len(measured) >= 4
    assert record.tuning.chosen.items() <= record.options.items()
    engine, manifest = load_engine(load_engine_artifact(report.folder / report.manifest.file.name))
    assert engine.info.options == record.options
    assert manifest.engine == record


def test_an_engine_on_a_gpu_is_not_tuned_by_mvde(
    source: GraphArtifact, random_images: Callable, tmp_path: Path
) -> None:
    options = BuildOptions(tune_s=1.0, without_device=True)
    with pytest.raises(UsageError, match="--tune is for engines on the CPU"):
        build.build_engine(
            source, EngineId.parse("tensorrt-rtx:fp16"), random_images(1, 32, 48, 3), root=tmp_path, options=options
        )


def test_an_int8_engine_is_tried_with_each_other_arithmetic_around_it_unless_one_was_asked_for() -> None:
    pytest.importorskip("openvino")
    hints = {
        precision: [
            one
            for one in openvino_compile.tuning_settings(precision, BuildOptions())
            if "INFERENCE_PRECISION_HINT" in one
        ]
        for precision in (Precision.FP32, Precision.BF16, Precision.INT8)
    }
    assert hints["fp32"] == hints["bf16"] == []
    named = (("f32", Precision.FP32), ("bf16", Precision.BF16), ("f16", Precision.FP16))
    there = [hint for hint, precision in named if arithmetic(precision).works]
    default = "bf16" if "bf16" in there else "f32"
    assert [one["INFERENCE_PRECISION_HINT"] for one in hints["int8"]] == [one for one in there if one != default]
    fixed = openvino_compile.tuning_settings(Precision.INT8, BuildOptions(rest=Precision.FP32))
    assert not any("INFERENCE_PRECISION_HINT" in one for one in fixed)


def test_what_tuning_chose_reaches_the_library(
    source: GraphArtifact, random_images: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(build, "tuned_options", _choosing({"INFERENCE_NUM_THREADS": "1", "ENABLE_CPU_PINNING": "NO"}))
    report = build.build_engine(
        source,
        EngineId.parse("openvino:fp32"),
        random_images(1, 32, 48, 3),
        root=tmp_path,
        options=BuildOptions(tune_s=1.0),
    )
    compiled = import_blob(report.folder / openvino_compile.ENGINE_FILE, report.manifest.engine.options)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert not compiled.get_property("ENABLE_CPU_PINNING")


def _choosing(settings: dict[str, Any]) -> Callable[..., tuple[BuildOptions, TuningRecord]]:
    def choose(recipe: Any, options: BuildOptions, budget_s: float, images: Any) -> tuple[BuildOptions, TuningRecord]:
        return BuildOptions(library=settings), TuningRecord(budget_s, settings, ())

    return choose
