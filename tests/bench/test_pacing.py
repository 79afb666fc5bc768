"""Camera-paced and concurrent runs, on an engine with fixed latency."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from mvde.bench import pacing
from mvde.bench.pacing import ConcurrentRun, PacedRun

IMAGES = [np.zeros((2, 2, 3), np.uint8)]


class SleepingRuntime:
    """Runtime that takes ``frame_s`` seconds per frame and records its peak concurrency."""

    def __init__(self, frame_s: float, fails_at: int | None = None) -> None:
        self.frame_s, self.fails_at = frame_s, fails_at
        self.num_frames = self.num_inside = self.most_inside = 0
        self._lock = threading.Lock()

    def infer(self, image: np.ndarray, fit: str) -> None:
        with self._lock:
            self.num_frames += 1
            self.num_inside += 1
            self.most_inside = max(self.most_inside, self.num_inside)
            is_bad = self.num_frames == self.fails_at
        time.sleep(self.frame_s)
        with self._lock:
            self.num_inside -= 1
        if is_bad:
            raise RuntimeError("the engine failed")


class VirtualTime:
    """Virtual clock advanced only by sleeping, so that machine load cannot delay a frame."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class VirtualRuntime:
    """Runtime that takes ``frame_s`` seconds of virtual time per frame."""

    def __init__(self, clock: VirtualTime, frame_s: float) -> None:
        self.clock, self.frame_s, self.num_frames = clock, frame_s, 0

    def infer(self, image: np.ndarray, fit: str) -> None:
        self.num_frames += 1
        self.clock.sleep(self.frame_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    virtual = VirtualTime()
    monkeypatch.setattr(pacing, "time", virtual)
    return virtual


def paced(runtime: Any, fps: float, duration_s: float) -> Any:
    run = PacedRun(runtime, IMAGES, "stretch", fps)
    run.run(duration_s, lambda: None)
    return run.result()


def test_an_engine_that_keeps_up_takes_every_frame_and_is_never_late(clock: VirtualTime) -> None:
    started = clock.now
    found = paced(VirtualRuntime(clock, 0.010), fps=20, duration_s=0.5)
    assert (found.num_frames, found.num_late, found.num_dropped) == (10, 0, 0)
    assert found.age.p50_ms == pytest.approx(10)
    assert clock.now - started == pytest.approx(0.46), "the tenth frame was captured 0.45 s after the first"


def test_an_engine_that_is_too_slow_takes_the_newest_frame_and_is_always_late(clock: VirtualTime) -> None:
    runtime = VirtualRuntime(clock, 0.0237)
    found = paced(runtime, fps=100, duration_s=0.5)
    assert found.num_late == found.num_frames == runtime.num_frames
    assert found.num_frames + found.num_dropped == 50, "every captured frame was either taken or dropped"
    # The engine is free at 23.7 k ms and takes the newest frame, less than 10 ms old; with a queue, age would grow.
    assert found.num_frames == 22
    assert found.age.max_ms < 33.7
    ages = [23.7 + 23.7 * index % 10 for index in range(22)]
    assert found.age.mean_ms == pytest.approx(np.mean(ages))


def test_a_single_slow_frame_makes_the_next_ones_late_or_dropped_once(clock: VirtualTime) -> None:
    runtime = VirtualRuntime(clock, 0.001)
    infer = runtime.infer

    def slow_once(image: np.ndarray, fit: str) -> None:
        infer(image, fit)
        if runtime.num_frames == 3:
            clock.sleep(0.034)

    runtime.infer = slow_once  # type: ignore[method-assign]
    found = paced(runtime, fps=100, duration_s=0.2)
    # Frame 2 ends 35 ms after its capture: it is late, frames 3 and 4 are dropped, and frame 5 starts 5 ms late.
    assert (found.num_frames, found.num_late, found.num_dropped) == (18, 1, 2)


def test_turns_add_up(clock: VirtualTime) -> None:
    run = PacedRun(VirtualRuntime(clock, 0.0), IMAGES, "stretch", 50)  # type: ignore[arg-type]
    for _ in range(3):
        run.run(0.1, lambda: None)
    assert run.result().num_frames + run.result().num_dropped == 15


def test_threads_share_the_engine() -> None:
    runtime = SleepingRuntime(0.02)
    run = ConcurrentRun(runtime, IMAGES, "stretch", 4)  # type: ignore[arg-type]
    run.run(0.2, lambda: None)
    found = run.result()
    assert runtime.most_inside == 4
    assert found.num_frames == runtime.num_frames
    assert found.throughput_fps <= 200, "upper bound for four threads at 20 ms"
    assert found.total.p50_ms >= 20


def test_an_error_in_a_thread_is_raised_where_it_is_waited_for() -> None:
    run = ConcurrentRun(SleepingRuntime(0.001, fails_at=3), IMAGES, "stretch", 2)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the engine failed"):
        run.run(5.0, lambda: None)
