"""A camera's clock and concurrent threads, on an engine whose time per frame is set."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from mvde.bench.pacing import ConcurrentRun, PacedRun

IMAGES = [np.zeros((2, 2, 3), np.uint8)]


class SleepingRuntime:
    """Takes ``frame_s`` seconds per frame, and knows how many threads were inside at once."""

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


def paced(runtime: Any, fps: float, duration_s: float) -> Any:
    run = PacedRun(runtime, IMAGES, "stretch", fps)
    run.run(duration_s, lambda: None)
    return run.result()


def test_an_engine_that_keeps_up_takes_every_frame_and_is_never_late() -> None:
    started = time.perf_counter()
    found = paced(SleepingRuntime(0.001), fps=20, duration_s=0.5)
    # Frames come 50 ms apart and take 1 ms: a scheduler would have to oversleep by 49 ms to make one late.
    assert (found.num_frames, found.num_late, found.num_dropped) == (10, 0, 0)
    assert 1 <= found.age.p50_ms < 25
    assert time.perf_counter() - started >= 9 / 20, "the tenth frame was captured 0.45 s after the first"


def test_an_engine_that_is_too_slow_takes_the_newest_frame_and_is_always_late() -> None:
    runtime = SleepingRuntime(0.025)
    found = paced(runtime, fps=100, duration_s=0.5)
    assert found.num_late == found.num_frames == runtime.num_frames
    assert found.num_frames + found.num_dropped == 50, "every captured frame was either taken or dropped"
    assert found.num_frames <= 500 / 25 + 1
    # A queue would let the age grow to half a second; the newest frame is at most one period old when it is taken.
    assert 25 <= found.age.p50_ms < 60


def test_turns_add_up() -> None:
    run = PacedRun(SleepingRuntime(0.0), IMAGES, "stretch", 50)  # type: ignore[arg-type]
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
    # Four sleepers of 20 ms deliver 200 frames/s; one at a time would deliver 50.
    assert 60 < found.throughput_fps <= 200
    assert found.total.p50_ms >= 20


def test_an_error_in_a_thread_is_raised_where_it_is_waited_for() -> None:
    run = ConcurrentRun(SleepingRuntime(0.001, fails_at=3), IMAGES, "stretch", 2)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the engine failed"):
        run.run(5.0, lambda: None)
