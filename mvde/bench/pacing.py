"""Frame arrival as on a robot: at a fixed camera rate, or from several threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvde.bench.distribution import Distribution
from mvde.runtime.depth import DepthRuntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.runtime.placement import Fit

Images = Sequence["NDArray[np.uint8]"]


@dataclass(frozen=True)
class Paced:
    """Results at a fixed camera rate, processing the newest frame whenever the engine is free, as a robot does.

    ``age`` is the time from a frame's capture to its result. A result is late if the next frame was captured before
    it; a frame is dropped if a newer one arrived before the engine was free.
    """

    fps: float
    num_frames: int
    num_late: int
    num_dropped: int
    age: Distribution


@dataclass(frozen=True)
class Concurrent:
    """Results of ``num_threads`` threads sharing a runtime, each requesting its next frame as soon as it is free."""

    num_threads: int
    num_frames: int
    throughput_fps: float
    total: Distribution


class PacedRun:
    """One engine's frames at a fixed camera rate, interleaved with other engines."""

    def __init__(self, runtime: DepthRuntime, images: Images, fit: Fit | None, fps: float) -> None:
        self._runtime, self._images, self._fit, self._fps = runtime, images, fit, fps
        self._ages_ms: list[float] = []
        self._num_late = 0
        self._num_dropped = 0

    def run(self, duration_s: float, on_frame: Callable[[], None]) -> None:
        """Process frames captured ``1 / fps`` apart for ``duration_s`` seconds, at least one."""
        period_s, started = 1 / self._fps, time.perf_counter()
        num_captured = max(round(duration_s * self._fps), 1)
        index = 0
        while index < num_captured:
            sleep_until(started + index * period_s)
            self._runtime.infer(self._images[index % len(self._images)], self._fit)
            now = time.perf_counter()
            self._ages_ms.append((now - started - index * period_s) * 1e3)
            newest = min(int((now - started) * self._fps), num_captured)
            self._num_late += newest > index
            self._num_dropped += max(newest - index - 1, 0)
            index = max(newest, index + 1)
            on_frame()

    def result(self) -> Paced:
        """Return the result over all turns."""
        return Paced(self._fps, len(self._ages_ms), self._num_late, self._num_dropped, Distribution.of(self._ages_ms))


class ConcurrentRun:
    """One engine's frames from several threads, interleaved with other engines."""

    def __init__(self, runtime: DepthRuntime, images: Images, fit: Fit | None, num_threads: int) -> None:
        self._runtime, self._images, self._fit, self._num_threads = runtime, images, fit, num_threads
        self._times_ms: list[float] = []
        self._elapsed_s = 0.0

    def run(self, duration_s: float, on_frame: Callable[[], None]) -> None:
        """Let every thread process frames for ``duration_s`` seconds, at least one. Re-raises a thread's error."""
        started = time.perf_counter()
        deadline = started + duration_s
        errors: list[BaseException] = []
        threads = [
            threading.Thread(target=self._take_frames, args=(first, deadline, errors), name=f"mvde-bench-{first}")
            for first in range(self._num_threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        self._elapsed_s += time.perf_counter() - started
        on_frame()

    def result(self) -> Concurrent:
        """Return the result over all turns."""
        fps = len(self._times_ms) / self._elapsed_s
        return Concurrent(self._num_threads, len(self._times_ms), fps, Distribution.of(self._times_ms))

    def _take_frames(self, index: int, deadline: float, errors: list[BaseException]) -> None:
        try:
            while True:
                started = time.perf_counter()
                self._runtime.infer(self._images[index % len(self._images)], self._fit)
                now = time.perf_counter()
                self._times_ms.append((now - started) * 1e3)  # list.append is atomic
                if now >= deadline or errors:
                    return
                index += self._num_threads
        except BaseException as error:  # noqa: BLE001 - re-raised in the waiting thread
            errors.append(error)


def sleep_until(when: float) -> None:
    """Sleep until ``when`` on the clock of time.perf_counter, plus the scheduler's wake-up latency."""
    wait_s = when - time.perf_counter()
    if wait_s > 0:
        time.sleep(wait_s)
