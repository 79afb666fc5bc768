"""Depth of a live source: newest frame first, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvde.errors import UsageError
from mvde.robot.live import LiveFrame, LiveStream
from mvde.runtime.on_time import OnTimeRuntime

if TYPE_CHECKING:
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.placement import Fit
    from mvde.runtime.result import DepthResult
    from mvde.runtime.stabilize import Stabilization


_MOST_TOO_OLD = 100
"""Frames in a row older than the budget: three seconds of a camera, in which nothing would be seen or said."""


@dataclass
class LiveCounts:
    """Frames of a live source: inferred, of these late, passed over for newer ones, and given up as too old."""

    num_inferred: int = 0
    num_late: int = 0
    num_passed_over: int = 0
    num_too_old: int = 0


@dataclass(frozen=True)
class LiveResult:
    """Depth of a live frame; ``age_ms`` from receiving the frame to the result, ``is_late`` if beyond the budget."""

    frame: LiveFrame
    result: DepthResult
    age_ms: float
    is_late: bool


def newest_first(
    runtime: DepthRuntime,
    stream: LiveStream,
    counts: LiveCounts,
    budget_ms: float | None = None,
    fit: Fit | None = None,
    stabilize: Stabilization | None = None,
) -> Iterator[LiveResult]:
    """Yield depth of the newest frame, again and again until the stream ends, and count in ``counts``.

    One frame at a time: :meth:`DepthRuntime.stream` has more throughput, but its results are several frames old. A
    frame that is older than ``budget_ms`` before its turn is given up, since the next one is on its way; a result that
    comes later is handed on, marked as late. A runtime with a deadline is told how old each frame is; without a budget,
    a result after its deadline is late. ``stabilize`` makes depth steady over the frames that are inferred; it begins
    anew after a gap.

    Raises :class:`UsageError` if no frame is young enough for a budget, and as :meth:`LiveStream.take` does.
    """
    num_seen: int | None = None  # frames received while the engine was loaded do not count
    num_too_old_in_a_row = 0
    infer = _inference(runtime, fit, stabilize)
    late_ms = runtime.deadline_ms if budget_ms is None and isinstance(runtime, OnTimeRuntime) else budget_ms
    while (frame := stream.take()) is not None:
        counts.num_passed_over += 0 if num_seen is None else frame.index - num_seen
        num_seen = frame.index + 1
        if budget_ms is not None and frame.age_ms > budget_ms:
            counts.num_too_old += 1
            num_too_old_in_a_row += 1
            if num_too_old_in_a_row == _MOST_TOO_OLD:
                raise UsageError(
                    f"each of {_MOST_TOO_OLD} frames in a row was older than the budget of {budget_ms:g} ms before its "
                    "turn; give a larger one"
                )
            continue
        num_too_old_in_a_row = 0
        result = infer(frame)
        age_ms = frame.age_ms
        is_late = late_ms is not None and age_ms > late_ms
        counts.num_inferred += 1
        counts.num_late += is_late
        yield LiveResult(frame, result, age_ms, is_late)


def _inference(
    runtime: DepthRuntime, fit: Fit | None, stabilize: Stabilization | None
) -> Callable[[LiveFrame], DepthResult]:
    """How frames of a stream are inferred: each for itself, or steady over those before."""
    if stabilize is None and isinstance(runtime, OnTimeRuntime):
        return lambda frame: runtime.infer(frame.image, fit, age_ms=frame.age_ms)
    if stabilize is None:
        return lambda frame: runtime.infer(frame.image, fit)
    from mvde.runtime.steady_stream import SteadyMaps

    steady = SteadyMaps(runtime.manifest.depth_kind, stabilize)
    if isinstance(runtime, OnTimeRuntime):
        return lambda frame: runtime.infer_next(frame.image, steady, fit, time_s=frame.received_s, age_ms=frame.age_ms)
    return lambda frame: runtime.infer_next(frame.image, steady, fit, time_s=frame.received_s)
