"""Engines with a deadline, at a camera's rate and under a load that comes and goes, beside each of them alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mvde.bench.distribution import Distribution
from mvde.bench.load import Load
from mvde.bench.pacing import sleep_until
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.on_time import OnTimeRuntime, load_on_time

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.artifact import EngineArtifact
    from mvde.bench.measure import Measurement
    from mvde.runtime.placement import Fit

NUM_LOADS = 2
"""How often the load comes in a run, each time for as long as it then stays away."""

ON_TIME = "on time"
"""Name of the run that chooses among all engines."""

Resolution = tuple[int, int]


class _Switch(Protocol):
    def switch(self, is_on: bool) -> None: ...


@dataclass(frozen=True)
class PacedFrame:
    """A frame: when it was captured, the resolution it was inferred at, its result's age, and whether load was on."""

    captured_s: float
    resolution: Resolution
    age_ms: float
    is_loaded: bool


@dataclass(frozen=True)
class OnTimeRun:
    """Frames of one engine, or of all with a deadline (``name`` :data:`ON_TIME`), at a camera's rate.

    ``num_late`` results were older than the deadline; ``num_late_loaded`` of these came under load. A frame is dropped
    if a newer one arrived before the engine was free. ``shares`` are those of the resolutions, ``accuracy`` is the
    engine's, or the mean over the frames' engines, each result held against its own frame; names with ``delivered_``
    are of what was there in time (:func:`delivered`). ``memory_bytes`` are those of all its engines.
    """

    name: str
    deadline_ms: float
    num_late: int
    num_late_loaded: int
    num_dropped: int
    num_switches: int
    memory_bytes: int
    age: Distribution
    shares: Mapping[str, float]
    accuracy: Mapping[str, float] | None
    frames: Sequence[PacedFrame]


def paced_frames(
    infer: Callable[[NDArray[np.uint8], float], Resolution],
    images: Sequence[NDArray[np.uint8]],
    fps: float,
    duration_s: float,
    load: _Switch,
    on_frame: Callable[[], None] = lambda: None,
) -> list[PacedFrame]:
    """Infer the newest frame whenever the engine is free, with the load on in the second half of each period.

    ``infer`` gets an image and its age in milliseconds, and returns the resolution it was inferred at.
    """
    frames: list[PacedFrame] = []
    period_s, started = duration_s / NUM_LOADS, time.perf_counter()
    num_captured, index = num_frames(fps, duration_s), 0
    while index < num_captured:
        captured_s = index / fps
        sleep_until(started + captured_s)
        is_loaded = (time.perf_counter() - started) % period_s >= period_s / 2
        load.switch(is_loaded)
        age_ms = (time.perf_counter() - started - captured_s) * 1e3
        resolution = infer(images[index % len(images)], age_ms)
        now_s = time.perf_counter() - started
        frames.append(PacedFrame(captured_s, resolution, (now_s - captured_s) * 1e3, is_loaded))
        index = max(int(now_s * fps), index + 1)
        on_frame()
    load.switch(False)
    return frames


def num_frames(fps: float, duration_s: float) -> int:
    """Number of frames that the camera captures."""
    return max(round(duration_s * fps), 1)


def measure_on_time(
    artifacts: Sequence[EngineArtifact],
    measurements: Sequence[Measurement],
    images: Sequence[NDArray[np.uint8]],
    *,
    fps: float,
    deadline_ms: float,
    duration_s: float,
    fit: Fit | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> list[OnTimeRun]:
    """Run each engine alone, from the smallest, then all with the deadline; ``measurements`` are of the same engines.

    Raises as :func:`mvde.runtime.on_time.load_on_time`.
    """
    num_captured = num_frames(fps, duration_s)
    known = {one.resolution: one for one in measurements}
    runs = []
    with Load() as load:
        for artifact in sorted(artifacts, key=lambda one: one.manifest.resolution):
            with DepthRuntime.load(artifact.path) as runtime:
                runtime.infer(images[0], fit)
                frames = paced_frames(
                    lambda image, _, one=runtime: one.infer(image, fit).placement.target_size,  # type: ignore[misc]
                    images, fps, duration_s, load, on_frame,
                )  # fmt: skip
                size = runtime.info.resolution
            runs.append(_run(_text(size), deadline_ms, frames, num_captured, known, known[size].memory_bytes))
        with load_on_time([one.path for one in artifacts], deadline_ms) as chosen:
            frames = paced_frames(
                lambda image, age_ms: chosen.infer(image, fit, age_ms=age_ms).placement.target_size,
                images, fps, duration_s, load, on_frame,
            )  # fmt: skip
            runs.append(_run(ON_TIME, deadline_ms, frames, num_captured, known, _memory_bytes(chosen)))
    return runs


def delivered(run: OnTimeRun, fps: float) -> list[tuple[int, Resolution] | None]:
    """Result that was there when each captured frame was due: the number of the frame it is of, and its resolution.

    It is the newest at the frame's deadline: its own where that was in time, else an earlier frame's, ``None`` before
    the first.
    """
    found: list[tuple[int, Resolution] | None] = []
    done = sorted(((one.captured_s * 1e3 + one.age_ms, one) for one in run.frames), key=lambda one: one[0])
    newest: tuple[int, Resolution] | None = None
    for number in range(len(run.frames) + run.num_dropped):
        while done and done[0][0] <= number * 1e3 / fps + run.deadline_ms:
            one = done.pop(0)[1]
            newest = round(one.captured_s * fps), one.resolution
        found.append(newest)
    return found


def _run(
    name: str,
    deadline_ms: float,
    frames: Sequence[PacedFrame],
    num_captured: int,
    known: Mapping[Resolution, Measurement],
    memory_bytes: int,
) -> OnTimeRun:
    sizes = [one.resolution for one in frames]
    shares = {size: sizes.count(size) / len(sizes) for size in known}
    late = [one for one in frames if one.age_ms > deadline_ms]
    return OnTimeRun(
        name=name,
        deadline_ms=deadline_ms,
        num_late=len(late),
        num_late_loaded=sum(one.is_loaded for one in late),
        num_dropped=num_captured - len(frames),
        num_switches=sum(one != other for one, other in itertools.pairwise(sizes)),
        memory_bytes=memory_bytes,
        age=Distribution.of([one.age_ms for one in frames]),
        shares={_text(size): share for size, share in shares.items() if share},
        accuracy=_accuracy(shares, known),
        frames=frames,
    )


def _accuracy(
    shares: Mapping[Resolution, float], known: Mapping[Resolution, Measurement]
) -> Mapping[str, float] | None:
    """Accuracy of the engines, each as often as it was used; ``None`` where it was not measured."""
    used = [(share, known[size].assessment.accuracy) for size, share in shares.items() if share]
    names = set.intersection(*(set(accuracy or ()) for _, accuracy in used))
    return {name: sum(share * (of or {})[name] for share, of in used) for name in sorted(names)} or None


def _memory_bytes(runtime: OnTimeRuntime) -> int:
    return sum(one.memory_bytes + (one.device_memory_bytes or 0) for one in runtime.members)


def _text(size: Resolution) -> str:
    return f"{size[0]}x{size[1]}"
