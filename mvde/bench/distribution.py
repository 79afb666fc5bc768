"""Statistics of a time series: distribution, warm-up and drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 5
"""Frames whose median represents a level, robust against one slow frame."""

TOLERANCE = 0.05
"""Relative difference below which levels count as equal: a relevant warm-up is a larger step."""


@dataclass(frozen=True)
class Distribution:
    """Distribution of one stage's times over all frames, in milliseconds.

    ``jitter_ms`` is the mean of ``|t[i] - t[i-1]|`` over consecutive frames, 0 for a single frame. Unlike a standard
    deviation, it is hardly affected by slow drift.
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
        """Distribution of the times; quantiles are observed times, not interpolated ones."""
        p50, p90, p99, p99_9 = (float(q) for q in np.quantile(times_ms, (0.5, 0.9, 0.99, 0.999), method="higher"))
        jitter = float(np.abs(np.diff(times_ms)).mean()) if len(times_ms) > 1 else 0.0
        return cls(float(np.mean(times_ms)), p50, p90, p99, p99_9, float(np.max(times_ms)), jitter)


@dataclass(frozen=True)
class WarmUp:
    """Frames before the measured ones.

    ``num_frames`` of them were slower than the level that followed; ``is_steady`` is ``False`` if the warm-up budget
    ran out before that level was reached.
    """

    num_frames: int
    is_steady: bool
    times_ms: tuple[float, ...]


def is_steady(times_ms: Sequence[float]) -> bool:
    """Whether the times have stopped falling: the median of the last five is not 5 % below that of the five before.

    Rising times count as steady: they are not warm-up but drift, see :func:`drift`.
    """
    if len(times_ms) < 2 * WINDOW:
        return False
    before, last = times_ms[-2 * WINDOW : -WINDOW], times_ms[-WINDOW:]
    return float(np.median(last)) >= (1 - TOLERANCE) * float(np.median(before))


def warm_up(times_ms: Sequence[float]) -> WarmUp:
    """Determine the warm-up: the leading frames before the times settled.

    The level is the median of the last five frames. Warm-up ends at the first frame within 5 % of it whose window of
    five frames also has a median within 5 % of it.
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
    """Median of the last third of the times over that of the first third: 1.10 is a slow-down of 10 %."""
    third = max(len(times_ms) // 3, 1)
    return float(np.median(times_ms[-third:]) / np.median(times_ms[:third]))
