"""Measurement of engines: load, warm-up, and whole frames in interleaved turns (A B A B), to average out noise.

A turn lasts a quarter of a second, and its first frame is not counted: caches are cold, and threads of the previous
engine may still be spinning. After ONNX Runtime, that frame took 47 ms instead of 30 with nano's bf16 engine at 448×448
on one core; from the second frame on, times equalled those of running alone.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.artifact import EngineArtifact
from mvde.bench import distribution, energy, peaks
from mvde.bench.distribution import Distribution, WarmUp
from mvde.bench.floor_cost import FloorCost, FloorRun
from mvde.bench.pacing import Concurrent, ConcurrentRun, Paced, PacedRun
from mvde.engines.base import DeviceEngine
from mvde.engines.machine import cpu_name, resident_bytes
from mvde.errors import UsageError
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.lanes import OPEN_AFTER_S
from mvde.runtime.placement import Fit, fit_image
from mvde.runtime.result import Timings

if TYPE_CHECKING:
    from numpy.typing import NDArray


MIN_FRAMES = 10
MIN_WARMUP_FRAMES = 3
MAX_WARMUP_FRAMES = 200
TURN_S = 0.25
MIN_TURN_FRAMES = 3
SETTLING_S = OPEN_AFTER_S + 0.5
"""Seconds of a stream before its throughput is measured, in which it may load a second engine."""
_NUM_TURNS = 4  # used if a turn's length is not given


@dataclass(frozen=True)
class BenchOptions:
    """Extent of a measurement.

    Every engine gets ``num_frames`` frames, or as many as fit into ``duration_s`` seconds (at least ten). ``fit`` is by
    default each engine's own. If given, ``paced_fps`` adds a run of the same length at that frame rate, and
    ``num_threads`` one from that many threads. ``deadline_ms`` adds runs at that rate with a load that comes and goes
    (:func:`mvde.bench.on_time.measure_on_time`).
    """

    duration_s: float = 5.0
    num_frames: int | None = None
    fit: Fit | None = None
    paced_fps: float | None = None
    num_threads: int | None = None
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < math.inf or (self.num_frames is not None and self.num_frames < 1):
            raise UsageError(
                "a benchmark needs a positive duration and number of frames, but got "
                f"{self.duration_s} s and {self.num_frames}"
            )
        if self.paced_fps is not None and not 0 < self.paced_fps < math.inf:
            raise UsageError(f"a camera needs a positive rate in frames per second, but got {self.paced_fps}")
        if self.deadline_ms is not None and self.paced_fps is None:
            raise UsageError(
                "a deadline is of frames at a camera's rate; give that too, in frames per second (--paced)"
            )
        if self.num_threads is not None and self.num_threads < 1:
            raise UsageError(f"the number of concurrent threads must be at least 1, but got {self.num_threads}")


@dataclass(frozen=True)
class Assessment:
    """Depth quality of a timed engine: metrics by name, and depths (H, W) float32 of the report's pictures."""

    accuracy: Mapping[str, float] | None = None
    depths: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True)
class Efficiency:
    """Arithmetic performance of an engine.

    ``num_flops`` is per call (see :func:`mvde.export.graph.flops.count_flops`), ``flops_per_s`` is relative to the
    median inference time; ``products`` is the speed of matrix products in the same precision on this machine (``None``
    if unknown).
    """

    num_flops: int
    flops_per_s: float
    products: peaks.ProductSpeed | None


@dataclass(frozen=True)
class Measurement:
    """Results of one engine. ``memory_bytes`` is the process's growth from loading and the first frames.

    ``throughput_fps`` is that of ``DepthRuntime.stream``, with overlapped stages, and ``energy_j`` the machine's
    consumption per frame meanwhile, by counter; the distributions are of single calls of ``infer`` on one frame.
    ``on_device`` is the network alone, between two events on its device. ``drift`` is the last third's median over the
    first's, ``unit`` the depth's. ``samples_us`` holds every frame's stages in microseconds.
    """

    name: str
    id: str
    resolution: tuple[int, int]
    batch: int
    unit: str
    executed_precision: str
    device: str
    library_version: str
    options: dict[str, Any]
    rewrites: dict[str, str]
    folder: str
    file_sha256: str
    load_ms: float
    first_frame_ms: float
    warm_up: WarmUp
    memory_bytes: int
    device_memory_bytes: int | None
    num_frames: int
    throughput_fps: float
    total: Distribution
    pre: Distribution
    infer: Distribution
    post: Distribution
    on_device: Distribution | None
    drift: float
    efficiency: Efficiency | None
    stats_kernel: peaks.KernelSpeed
    energy_j: dict[str, float]
    paced: Paced | None
    concurrent: Concurrent | None
    floor: FloorCost | None
    assessment: Assessment
    samples_us: dict[str, list[int]]


@dataclass
class _Run:
    """Engine under measurement."""

    artifact: EngineArtifact
    runtime: DepthRuntime
    load_ms: float
    first_frame_ms: float
    warm_up: WarmUp
    memory_bytes: int
    timings: list[Timings] = field(default_factory=list)
    throughput_fps: float = 0.0
    energy_j: dict[str, float] = field(default_factory=dict)
    device_times_ms: list[float] = field(default_factory=list)
    paced: Paced | None = None
    concurrent: Concurrent | None = None
    floor: FloorCost | None = None
    assessment: Assessment = Assessment()


def measure_engines(
    artifacts: Sequence[EngineArtifact],
    images: Sequence[NDArray[np.uint8]],
    options: BenchOptions = BenchOptions(),
    *,
    assess: Callable[[DepthRuntime], Assessment] | None = None,
    floor: Callable[[DepthRuntime], FloorRun] | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measure each engine, in order, on frames (H, W, 3) uint8 RGB taken from ``images`` in turn.

    Engines are interleaved. ``assess`` is called at the end with each engine, still loaded; ``on_frame`` after each
    frame. ``floor`` makes the measurement of an engine's scale from the floor.

    Raises what loading and running an engine raises.
    """
    runs: list[_Run] = []
    try:
        for artifact in artifacts:
            runs.append(_start(artifact, images[0], options))
        _take_frames(runs, images, options, on_frame)
        for run in runs:
            _stream(run, images, options)
        _at_a_cameras_clock(runs, images, options, on_frame)
        _from_several_threads(runs, images, options, on_frame)
        _with_the_floor(runs, floor, images[0], options, on_frame)
        _on_their_devices(runs, images[0], options)
        for run in runs:
            run.assessment = assess(run.runtime) if assess is not None else Assessment()
        return [_measurement(run) for run in runs]
    finally:
        for run in runs:
            run.runtime.close()


def _start(artifact: EngineArtifact, image: NDArray[np.uint8], options: BenchOptions) -> _Run:
    """Load and warm up an engine; the first frame's time is kept as start-up latency."""
    gc.collect()
    before_bytes = resident_bytes()
    started = time.perf_counter()
    runtime = DepthRuntime.load(Path(artifact.path))
    load_ms = _ms_since(started)
    started = time.perf_counter()
    runtime.infer(image, options.fit)
    first_frame_ms = _ms_since(started)
    times_ms, deadline = [first_frame_ms], time.perf_counter() + options.duration_s
    while not distribution.is_steady(times_ms):
        times_ms.append(runtime.infer(image, options.fit).timings.total_ms)
        is_over = time.perf_counter() > deadline or len(times_ms) >= MAX_WARMUP_FRAMES
        if is_over and len(times_ms) > MIN_WARMUP_FRAMES:
            break
    memory_bytes = max(resident_bytes() - before_bytes, 0)
    return _Run(artifact, runtime, load_ms, first_frame_ms, distribution.warm_up(times_ms), memory_bytes)


def _take_frames(
    runs: Sequence[_Run], images: Sequence[NDArray[np.uint8]], options: BenchOptions, on_frame: Callable[[], None]
) -> None:
    """Measure frames of every engine in turns, until each meets the options."""
    started, budget_s, wanted = time.perf_counter(), options.duration_s * len(runs), options.num_frames
    while True:
        for run in runs:
            if len(runs) > 1:
                run.runtime.infer(images[0], options.fit)
            _take_turn(run, images, options, on_frame)
        num_frames = min(len(run.timings) for run in runs)
        if num_frames >= (wanted or MIN_FRAMES) and (wanted or time.perf_counter() - started >= budget_s):
            return


def _take_turn(
    run: _Run, images: Sequence[NDArray[np.uint8]], options: BenchOptions, on_frame: Callable[[], None]
) -> None:
    turn_ends = time.perf_counter() + min(TURN_S, options.duration_s / _NUM_TURNS)
    most = None if options.num_frames is None else -(-options.num_frames // _NUM_TURNS)
    for count in itertools.count():
        if options.num_frames is not None and (count == most or len(run.timings) == options.num_frames):
            return
        if options.num_frames is None and count >= MIN_TURN_FRAMES and time.perf_counter() >= turn_ends:
            return
        image = images[len(run.timings) % len(images)]
        run.timings.append(run.runtime.infer(image, options.fit).timings)
        on_frame()


def _stream(run: _Run, images: Sequence[NDArray[np.uint8]], options: BenchOptions) -> None:
    """Measure throughput and energy of a stream of half as many frames as were measured singly, once it is settled."""
    batch = run.runtime.info.batch
    count = max(max(len(run.timings) // 2, MIN_FRAMES) // batch * batch, batch)
    frames = itertools.cycle(images)
    run.runtime.infer(images[0], options.fit)
    settled_at = time.perf_counter() + (min(SETTLING_S, options.duration_s) if options.num_frames is None else 0)
    for _ in run.runtime.stream(itertools.takewhile(lambda _: time.perf_counter() < settled_at, frames), options.fit):
        pass
    started = time.perf_counter()
    with energy.measure(energy.counters()) as used:
        num_results = sum(1 for _ in run.runtime.stream(itertools.islice(frames, count), options.fit))
    run.throughput_fps = num_results / (time.perf_counter() - started)
    run.energy_j = {name: joules / num_results for name, joules in used.joules.items()}


def _at_a_cameras_clock(
    runs: Sequence[_Run], images: Sequence[NDArray[np.uint8]], options: BenchOptions, on_frame: Callable[[], None]
) -> None:
    if options.paced_fps is not None:
        paced = [PacedRun(run.runtime, images, options.fit, options.paced_fps) for run in runs]
        _take_turns(runs, [one.run for one in paced], images[0], options, on_frame)
        for run, one in zip(runs, paced, strict=True):
            run.paced = one.result()


def _from_several_threads(
    runs: Sequence[_Run], images: Sequence[NDArray[np.uint8]], options: BenchOptions, on_frame: Callable[[], None]
) -> None:
    if options.num_threads is not None:
        concurrent = [ConcurrentRun(run.runtime, images, options.fit, options.num_threads) for run in runs]
        _take_turns(runs, [one.run for one in concurrent], images[0], options, on_frame)
        for run, one in zip(runs, concurrent, strict=True):
            run.concurrent = one.result()


def _with_the_floor(
    runs: Sequence[_Run],
    floor: Callable[[DepthRuntime], FloorRun] | None,
    image: NDArray[np.uint8],
    options: BenchOptions,
    on_frame: Callable[[], None],
) -> None:
    if floor is not None:
        floors = [floor(run.runtime) for run in runs]
        _take_turns(runs, [one.run for one in floors], image, options, on_frame)
        for run, one in zip(runs, floors, strict=True):
            run.floor = one.result()


def _take_turns(
    runs: Sequence[_Run],
    turns: Sequence[Callable[[float, Callable[[], None]], None]],
    image: NDArray[np.uint8],
    options: BenchOptions,
    on_frame: Callable[[], None],
) -> None:
    for _ in range(_NUM_TURNS):
        for run, turn in zip(runs, turns, strict=True):
            run.runtime.infer(image, options.fit)
            turn(options.duration_s / _NUM_TURNS, on_frame)


def _on_their_devices(runs: Sequence[_Run], image: NDArray[np.uint8], options: BenchOptions) -> None:
    """Time the networks alone on engines that support it, as many times as frames were measured."""
    for _ in range(_NUM_TURNS):
        for run in runs:
            if isinstance(run.runtime.engine, DeviceEngine):
                info = run.runtime.info
                fitted = fit_image(image, run.runtime.placement((image.shape[0], image.shape[1]), options.fit))
                batch = np.repeat(fitted[None], info.batch, axis=0)
                count = -(-len(run.timings) // _NUM_TURNS)
                run.device_times_ms += run.runtime.engine.device_times_ms(batch, count)


def _measurement(run: _Run) -> Measurement:
    info, manifest, engine = run.runtime.info, run.artifact.manifest, run.runtime.engine
    times_ms = {
        "pre": [timings.pre_ms for timings in run.timings],
        "infer": [timings.infer_ms for timings in run.timings],
        "post": [timings.post_ms for timings in run.timings],
    }
    total_ms = [timings.total_ms for timings in run.timings]
    return Measurement(
        name=manifest.name,
        id=info.id,
        resolution=info.resolution,
        batch=info.batch,
        unit=manifest.unit,
        executed_precision=info.executed_precision,
        device=info.device,
        library_version=info.library_version,
        options=dict(info.options),
        rewrites=dict(info.rewrites),
        folder=run.artifact.path.parent.name,
        file_sha256=manifest.file.sha256,
        load_ms=run.load_ms,
        first_frame_ms=run.first_frame_ms,
        warm_up=run.warm_up,
        memory_bytes=run.memory_bytes,
        device_memory_bytes=engine.device_memory_bytes() if isinstance(engine, DeviceEngine) else None,
        num_frames=len(run.timings),
        throughput_fps=run.throughput_fps,
        total=Distribution.of(total_ms),
        pre=Distribution.of(times_ms["pre"]),
        infer=Distribution.of(times_ms["infer"]),
        post=Distribution.of(times_ms["post"]),
        on_device=Distribution.of(run.device_times_ms) if run.device_times_ms else None,
        drift=distribution.drift(total_ms),
        efficiency=_efficiency(run, times_ms["infer"]),
        stats_kernel=peaks.kernel_speed(info.resolution, manifest.stats_patch, manifest.stats),
        energy_j=run.energy_j,
        paced=run.paced,
        concurrent=run.concurrent,
        floor=run.floor,
        assessment=run.assessment,
        samples_us={stage: [round(ms * 1e3) for ms in values] for stage, values in times_ms.items()},
    )


def _efficiency(run: _Run, infer_ms: Sequence[float]) -> Efficiency | None:
    """Arithmetic performance relative to the CPU's measured peak; no peak is measured for other devices."""
    num_flops, info = run.artifact.manifest.num_flops, run.runtime.info
    if num_flops is None:
        return None
    times_ms = run.device_times_ms or infer_ms
    precision = info.main_precision if info.device == cpu_name() else None
    products = None if precision is None else peaks.product_speed(precision)
    return Efficiency(num_flops, num_flops / float(np.median(times_ms)) * 1e3, products)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
