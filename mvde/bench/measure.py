"""Measuring engines: load, first frame, and whole frames interleaved A B A B, so that noise does not decide."""

from __future__ import annotations

import gc
import itertools
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.artifact import Artifact
from mvde.errors import UsageError
from mvde.runtime.depth import DepthRuntime, Timings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.image import Fit

MIN_FRAMES = 10
NUM_WARMUP_FRAMES = 3


@dataclass(frozen=True)
class Distribution:
    """Milliseconds over all frames of one stage."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Distribution:
        """Distribution of the times; a quantile is a time that occurred, so that few frames are not smoothed over."""
        p50, p90, p99, p99_9 = (float(q) for q in np.quantile(times_ms, (0.5, 0.9, 0.99, 0.999), method="higher"))
        return cls(float(np.mean(times_ms)), p50, p90, p99, p99_9, float(np.max(times_ms)))


@dataclass(frozen=True)
class Measurement:
    """One engine. ``memory_bytes`` is what loading it and its first frames added to the process.

    ``throughput_fps`` is what ``DepthRuntime.stream`` delivers, with its stages overlapped; the distributions are of
    single calls of ``infer`` on one frame.
    """

    name: str
    id: str
    resolution: tuple[int, int]
    batch: int
    executed_precision: str
    device: str
    library_version: str
    folder: str
    load_ms: float
    first_frame_ms: float
    memory_bytes: int
    num_frames: int
    throughput_fps: float
    total: Distribution
    pre: Distribution
    infer: Distribution
    post: Distribution


@dataclass
class _Run:
    """An engine under measurement."""

    artifact: Artifact
    runtime: DepthRuntime
    load_ms: float
    first_frame_ms: float
    memory_bytes: int
    timings: list[Timings] = field(default_factory=list)
    throughput_fps: float = 0.0


def measure_engines(
    artifacts: Sequence[Artifact],
    images: Sequence[NDArray[np.uint8]],
    *,
    duration_s: float = 5.0,
    num_frames: int | None = None,
    fit: Fit = "stretch",
    on_frame: Callable[[], None] | None = None,
) -> list[Measurement]:
    """One measurement per engine, in order, over frames (H, W, 3), uint8 RGB, taken from ``images`` in turn.

    Every engine gets ``num_frames`` frames, or as many as fit into ``duration_s`` seconds per engine (at least ten);
    frames of the engines alternate. ``on_frame`` is called after each frame.

    Raises :class:`UsageError` for a duration or a number of frames that is not positive.
    """
    if not duration_s > 0 or (num_frames is not None and num_frames < 1):
        raise UsageError(
            f"a benchmark needs a positive duration and number of frames, but got {duration_s} s and {num_frames}"
        )
    runs: list[_Run] = []
    try:
        for artifact in artifacts:
            runs.append(_start(artifact, images[0], fit))
        _interleave(runs, images, fit, duration_s * len(runs), num_frames, on_frame)
        for run in runs:
            run.throughput_fps = _stream_fps(run, images, fit)
        return [_measurement(run) for run in runs]
    finally:
        for run in runs:
            run.runtime.close()


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_machine() -> dict[str, Any]:
    """What a timing depends on, as JSON types: CPU, cores, features, memory, load, mvde's version."""
    import os
    import platform

    from mvde import __version__
    from mvde.engines import machine

    return {
        "mvde": __version__,
        "cpu": machine.cpu_name(),
        "num_cpus": machine.num_cpus(),
        "cpu_features": list(machine.cpu_features()),
        "memory_bytes": machine.memory_bytes(),
        "gpus": machine.nvidia_gpus(),
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _start(artifact: Artifact, image: NDArray[np.uint8], fit: Fit) -> _Run:
    """Engine loaded and warm; the first frame's time is kept, since a robot waits for it."""
    gc.collect()
    before_bytes = _rss_bytes()
    started = time.perf_counter()
    runtime = DepthRuntime.load(Path(artifact.path))
    load_ms = _ms_since(started)
    started = time.perf_counter()
    runtime.infer(image, fit)
    first_frame_ms = _ms_since(started)
    for _ in range(NUM_WARMUP_FRAMES):
        runtime.infer(image, fit)
    return _Run(artifact, runtime, load_ms, first_frame_ms, max(_rss_bytes() - before_bytes, 0))


def _interleave(
    runs: Sequence[_Run],
    images: Sequence[NDArray[np.uint8]],
    fit: Fit,
    budget_s: float,
    num_frames: int | None,
    on_frame: Callable[[], None] | None,
) -> None:
    started = time.perf_counter()
    for index in itertools.count():
        if index >= (num_frames or MIN_FRAMES) and (num_frames or time.perf_counter() - started >= budget_s):
            return
        for run in runs:
            run.timings.append(run.runtime.infer(images[index % len(images)], fit).timings)
            if on_frame is not None:
                on_frame()


def _stream_fps(run: _Run, images: Sequence[NDArray[np.uint8]], fit: Fit) -> float:
    """Frames per second out of a stream of half as many frames as were measured singly."""
    count = max(len(run.timings) // 2, MIN_FRAMES) // run.runtime.info.batch * run.runtime.info.batch
    frames = itertools.islice(itertools.cycle(images), max(count, run.runtime.info.batch))
    started = time.perf_counter()
    num_results = sum(1 for _ in run.runtime.stream(frames, fit))
    return num_results / (time.perf_counter() - started)


def _measurement(run: _Run) -> Measurement:
    info = run.runtime.info
    return Measurement(
        name=run.artifact.manifest.name,
        id=info.id,
        resolution=info.resolution,
        batch=info.batch,
        executed_precision=info.executed_precision,
        device=info.device,
        library_version=info.library_version,
        folder=run.artifact.path.parent.name,
        load_ms=run.load_ms,
        first_frame_ms=run.first_frame_ms,
        memory_bytes=run.memory_bytes,
        num_frames=len(run.timings),
        throughput_fps=run.throughput_fps,
        total=Distribution.of([timings.total_ms for timings in run.timings]),
        pre=Distribution.of([timings.pre_ms for timings in run.timings]),
        infer=Distribution.of([timings.infer_ms for timings in run.timings]),
        post=Distribution.of([timings.post_ms for timings in run.timings]),
    )


def _rss_bytes() -> int:
    """Resident size of this process (Linux; elsewhere its peak, which only grows)."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory_bytes()
    return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
