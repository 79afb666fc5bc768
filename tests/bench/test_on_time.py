"""Runs with a deadline: frames at a camera's rate under a load that comes and goes, and the processes that make it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

from mvde.bench import on_time, pacing, peaks
from mvde.bench.distribution import Distribution
from mvde.bench.load import Load
from mvde.bench.on_time import OnTimeRun, PacedFrame, delivered, paced_frames

IMAGES = [np.zeros((2, 2, 3), np.uint8)]


class VirtualTime:
    """Virtual clock advanced only by sleeping, so that machine load cannot delay a frame."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class RecordedLoad:
    """A load that slows frames down while it is on."""

    def __init__(self) -> None:
        self.is_on = False

    def switch(self, is_on: bool) -> None:
        self.is_on = is_on


@pytest.fixture
def short_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the verb measures of the machine short."""
    monkeypatch.setattr(peaks, "_SIZES", (128,))
    monkeypatch.setattr(peaks, "_SECONDS_PER_SIZE", 0.02)
    monkeypatch.setattr(peaks, "_KERNEL_SECONDS", 0.01)
    monkeypatch.setattr(peaks, "_COPY_BYTES", 1 << 20)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    made = VirtualTime()
    for module in (on_time, pacing):
        monkeypatch.setattr(module, "time", made)
    return made


def test_the_load_is_on_in_every_second_quarter_and_the_newest_frame_is_taken(clock: VirtualTime) -> None:
    load = RecordedLoad()

    def infer(image: np.ndarray, age_ms: float) -> tuple[int, int]:
        clock.sleep(0.15 if load.is_on else 0.05)
        return (32, 32) if load.is_on else (64, 64)

    frames = paced_frames(infer, IMAGES, fps=10, duration_s=4, load=load)
    assert not load.is_on
    assert [one.captured_s for one in frames[:11]] == pytest.approx([0.1 * number for number in range(11)])
    assert all(one.is_loaded == ((one.captured_s + 1e-9) % 2 >= 1 or one.age_ms > 160) for one in frames[:12])
    assert {one.resolution for one in frames if one.is_loaded} == {(32, 32)}
    assert all(one.age_ms == pytest.approx(50) for one in frames if not one.is_loaded and 0.5 < one.captured_s < 1)
    numbers = [round(one.captured_s * 10) for one in frames]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 40, "0.15 s at 10 frames per second: some are passed over"
    ages = [one.age_ms for one in frames if one.is_loaded]
    assert min(ages) == pytest.approx(150)
    assert max(ages) < 150 + 100, "the newest frame is younger than a period"


def busy_s(process_id: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_processes_compute_while_the_load_is_on_and_end_with_it() -> None:
    with Load(1) as load:
        (process,) = load._processes
        load.switch(True)
        until = time.monotonic() + 20
        while busy_s(process.pid) < 0.1 and time.monotonic() < until:
            time.sleep(0.02)
        assert busy_s(process.pid) >= 0.1
        load.switch(False)
        time.sleep(0.1)
        before = busy_s(process.pid)
        time.sleep(0.2)
        assert busy_s(process.pid) - before < 0.15
    assert process.returncode == 0


def test_accuracy_is_that_of_the_engines_as_often_as_they_were_used() -> None:
    from types import SimpleNamespace as Plain

    known = {
        size: Plain(assessment=Plain(accuracy=accuracy))
        for size, accuracy in {(32, 32): {"abs_rel": 0.2, "rmse": 1.0}, (64, 64): {"abs_rel": 0.1}}.items()
    }
    shares = {(32, 32): 0.25, (64, 64): 0.75}
    assert on_time._accuracy(shares, known) == pytest.approx({"abs_rel": 0.125})  # type: ignore[arg-type]
    assert on_time._accuracy({(32, 32): 0.0, (64, 64): 1.0}, known) == {"abs_rel": 0.1}  # type: ignore[arg-type]
    assert on_time._accuracy({(32, 32): 1.0}, {(32, 32): Plain(assessment=Plain(accuracy=None))}) is None  # type: ignore[dict-item]


def test_delivered_is_the_newest_result_that_was_there_when_a_frame_was_due() -> None:
    small, large = (32, 32), (64, 64)
    frames = [  # at 10 frames a second: in time, late by more than a period, passed over, in time, late
        PacedFrame(0.0, large, 40, False),
        PacedFrame(0.1, large, 180, True),
        PacedFrame(0.3, small, 20, True),
        PacedFrame(0.4, small, 60, True),
    ]
    run = OnTimeRun("on time", 50, 2, 2, 1, 1, 0, Distribution.of([40, 180, 20, 60]), {}, None, frames)
    assert delivered(run, 10.0) == [(0, large), (0, large), (0, large), (3, small), (3, small)]
    late = dataclasses.replace(run, frames=frames[1:2], num_dropped=0, deadline_ms=10)
    assert delivered(late, 10.0) == [None]


@pytest.mark.slow
def test_the_verb_shows_each_engine_and_the_choice_among_them(
    engines_of_two_sizes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], short_peaks: None
) -> None:
    import json

    from mvde import cli

    folder, report = engines_of_two_sizes[0].parent, tmp_path / "report.json"
    options = ["bench", "--engine-dir", str(folder), "--frames", "8", "--paced", "20", "--deadline", "500"]
    files = ["--json", str(report), "--markdown", str(tmp_path / "table.md"), "--html", str(tmp_path / "page.html")]
    assert cli.execute([*options, *files]) == 0
    runs = json.loads(report.read_text())["on_time"]
    assert [one["name"] for one in runs] == ["32x48", "64x96", "on time"]
    for one in runs:
        assert one["num_frames"] == len(one["age_ms"]) == len(one["heights"]) == len(one["is_loaded"])
        assert one["num_frames"] + one["num_dropped"] == 8
        assert one["num_late"] == sum(age > 500 for age in one["age_ms"])
        assert sum(one["shares"].values()) == pytest.approx(1)
    assert runs[0]["shares"] == {"32x48": 1.0}
    assert set(runs[0]["heights"]) == {32}
    assert "| deadline 500 ms, load comes and goes | late |" in (tmp_path / "table.md").read_text()
    assert "<h2>On time</h2>" in (tmp_path / "page.html").read_text()
    assert "deadline 500 ms, load comes and goes" in capsys.readouterr().out


def test_a_deadline_needs_a_rate_and_engines_of_one_model(
    engines_of_two_sizes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from mvde import cli

    options = ["bench", "--engine-dir", str(engines_of_two_sizes[0].parent)]
    assert cli.execute([*options, "--deadline", "33"]) == 2
    assert "--deadline is of frames at a camera's rate; give --paced FPS too" in capsys.readouterr().err
    twice = ["-e", "fp32", "-e", str(engines_of_two_sizes[0])]
    assert cli.execute([*options, *twice, "--res", "32x48", "--deadline", "-1", "--paced", "30"]) == 2
    assert "--deadline is a number of milliseconds above 0, but got -1" in capsys.readouterr().err


def test_the_page_shows_resolution_load_and_late_results_over_time() -> None:
    from mvde.bench.page_on_time import on_time_section

    frames = [
        PacedFrame(0.0, (64, 64), 20, False),
        PacedFrame(1.0, (64, 64), 40, True),
        PacedFrame(2.0, (32, 32), 9, True),
    ]
    run = OnTimeRun("on time", 33, 1, 1, 0, 1, 0, Distribution.of([20, 40, 9]), {"64x64": 2 / 3}, None, frames)
    html = on_time_section([run])
    assert "1 of 3 late, 0 dropped" in html
    assert 'd="M0.00 25.0H50.00V25.0H100.00V75.0"' in html, "64 is the upper of two levels"
    assert 'd="M50.00 25.0h0"' in html, "the late result"
    assert '<rect x="50.00" y="0" width="50.00"' in html, "under load from the second frame on"
    assert on_time_section([]) == ""
