"""What a row of times says: its distribution, whether it has settled, and how it drifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 5
"""Frames whose median stands for a level: one slow frame among five does not move it."""

TOLERANCE = 0.05
"""Levels that differ by less count as one: a warm-up that matters is a larger step."""


@dataclass(frozen=True)
class Distribution:
    """Milliseconds over all frames of one stage.

    ``jitter_ms`` is the mean of ``|t[i] - t[i-1]|`` over frames that follow one another, 0 for a single frame: what a
    consumer feels from one frame to the next. A slow drift hardly enters it, unlike a standard deviation.
    """

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float
    jitter_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Distribution:
        """Distribution of the times; a quantile is a time that occurred, so that few frames are not smoothed over."""
        p50, p90, p99, p99_9 = (float(q) for q in np.quantile(times_ms, (0.5, 0.9, 0.99, 0.999), method="higher"))
        jitter = float(np.abs(np.diff(times_ms)).mean()) if len(times_ms) > 1 else 0.0
        return cls(float(np.mean(times_ms)), p50, p90, p99, p99_9, float(np.max(times_ms)), jitter)


@dataclass(frozen=True)
class WarmUp:
    """The frames before the measured ones: their times, how many of them were slower than the level that followed, and
    whether that level was reached (``False``: the time for warming up ran out)."""

    num_frames: int
    is_steady: bool
    times_ms: tuple[float, ...]


def is_steady(times_ms: Sequence[float]) -> bool:
    """Whether the times have stopped falling: the last five frames' median is not 5 % under that of the five before.

    Times that rise again are steady in this sense: they are no warm-up, and :func:`drift` reports them.
    """
    if len(times_ms) < 2 * WINDOW:
        return False
    before, last = times_ms[-2 * WINDOW : -WINDOW], times_ms[-WINDOW:]
    return float(np.median(last)) >= (1 - TOLERANCE) * float(np.median(before))


def warm_up(times_ms: Sequence[float]) -> WarmUp:
    """The warm-up in the times from the first frame on, the frames before it settled.

    The level is the median of the last five frames. The first frame that is within 5 % of it, and whose following five
    have a median within 5 % of it, ends the warm-up.
    """
    limit = (1 + TOLERANCE) * float(np.median(times_ms[-WINDOW:]))
    last_start = max(len(times_ms) - WINDOW, 0)
    settled = (
        start
        for start in range(last_start)
        if times_ms[start] <= limit and float(np.median(times_ms[start : start + WINDOW])) <= limit
    )
    return WarmUp(next(settled, last_start), is_steady(times_ms), tuple(times_ms))


def drift(times_ms: Sequence[float]) -> float:
    """Median of the last third of the times over that of the first third: 1.10 is a machine that slows down by 10 %."""
    third = max(len(times_ms) // 3, 1)
    return float(np.median(times_ms[-third:]) / np.median(times_ms[:third]))
