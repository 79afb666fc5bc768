"""Which of several engines infers the next frame, so that its result is there in time: the specification.

A policy without a clock: it is told what each frame took and answers with the engine of the next one. Its arithmetic is
of sums, products, quotients and comparisons of float64 in a fixed order, so that other languages decide alike.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from mvde.errors import UsageError

STAY_SHARE = 0.95
"""Share of the deadline that a frame may be expected to take: what is above is left before a frame is late."""
UP_SHARE = 0.85
"""The same for a larger engine: less far from :data:`STAY_SHARE` than noise is high, the two would alternate."""
RECENT_FRAMES = 2
"""Frames whose worst says that an engine is too slow: the first slow one is enough, and the one before it is kept."""
HOLD_FRAMES = 10
"""Frames without a switch, and in which the larger engine would have been in time, before it is tried."""
RETRY_FRAMES = 60
"""Frames until a larger engine that was too slow at once is tried again, unless the load has gone; then twice as many,
up to :data:`MOST_RETRY_FRAMES`. One late frame in 60 alone would be more than one in a hundred."""
MOST_RETRY_FRAMES = 1920
CLEARED_SHARE = 0.8
"""Share of the load at which an engine was too slow, below which it is tried without waiting."""
LATE_COSTS_FRAMES = 120
"""Frames that pay for a late one that a smaller engine would have held, before a larger one is tried: less than one in
a hundred is late, however often a load comes and goes."""
MOST_CREDIT_FRAMES = 360
"""Frames that are remembered for it: three late ones may follow each other, as where a load begins again at once."""
UNHELD_FRAMES = 10
"""Late frames of the smallest engine in a row that say that no engine holds the deadline."""
MOST_ENGINES = 16


class DeadlinePolicy:
    """Choice of the largest engine that holds a deadline, from what frames took, with hysteresis.

    The *load* of a frame is the time its network took over the time it takes alone. Every engine is expected to be
    slower by the load of the last frames, on top of what the frame needs besides (resizing, mapping back). It goes down
    as soon as a frame says so, and up after :data:`HOLD_FRAMES` that all allow it, where frames in time have paid for
    the late ones (:data:`LATE_COSTS_FRAMES`).

    Not thread-safe.
    """

    def __init__(self, costs_ms: Sequence[float], deadline_ms: float) -> None:
        """``costs_ms`` are what the engines' networks take alone, from the smallest engine to the largest.

        Raises :class:`UsageError` for no or too many engines, and for a cost or deadline that is not above 0.
        """
        self._costs, self._deadline_ms = _checked_costs(costs_ms), check_deadline(deadline_ms)
        self._loads: deque[float] = deque(maxlen=HOLD_FRAMES)
        self._others_ms: deque[float] = deque(maxlen=HOLD_FRAMES)
        self._since_switch, self._credit = 0, LATE_COSTS_FRAMES
        self._waits = [0] * len(self._costs)
        self._retries = [RETRY_FRAMES] * len(self._costs)
        self._failed_loads = [0.0] * len(self._costs)
        self._unheld_in_a_row = 0
        self.level = self._largest(len(self._costs) - 1, RECENT_FRAMES, UP_SHARE * self._deadline_ms)
        """Engine of the last choice, 0 for the smallest; at first, the largest that is in time without load."""
        self._trial: int | None = self.level
        self._trial_load = 1.0
        self.num_frames = 0
        self.num_late = 0
        """Frames after their deadline."""
        self.num_unheld = 0
        """Of these, frames that none of the engines would have held: of the smallest, and not for having waited, unless
        it was for another such frame."""
        self.num_switches = 0
        self.is_unheld = False
        """Whether no engine has held the deadline for :data:`UNHELD_FRAMES` in a row, now or at some time before."""

    @property
    def deadline_ms(self) -> float:
        """Deadline in milliseconds, from a frame's capture (or its being given) to its result."""
        return self._deadline_ms

    @property
    def costs_ms(self) -> tuple[float, ...]:
        """What the networks take alone in milliseconds, from the smallest engine to the largest."""
        return self._costs

    def choose(self, age_ms: float = 0.0) -> int:
        """Engine of the next frame, 0 for the smallest; ``age_ms`` is how old the frame is already."""
        level = self._largest(self.level, RECENT_FRAMES, STAY_SHARE * self._deadline_ms - age_ms)
        if level < self.level:
            self._go_down(level)
        elif self._since_switch >= HOLD_FRAMES and self._credit >= 0:
            self._go_up(UP_SHARE * self._deadline_ms - age_ms)
        return self.level

    def observe(self, index: int, network_ms: float, latency_ms: float, age_ms: float = 0.0) -> bool:
        """Note what a frame of engine ``index`` took, and return whether it was late.

        ``network_ms`` is the network alone, ``latency_ms`` all from the frame's capture, of which ``age_ms`` had passed
        when it was chosen.
        """
        self._loads.append(network_ms / self._costs[index])
        self._others_ms.append(max(latency_ms - age_ms - network_ms, 0.0))
        self._waits = [max(frames - 1, 0) for frames in self._waits]
        self._since_switch += 1
        if self._trial is not None and self._since_switch >= HOLD_FRAMES:
            self._retries[self._trial] = RETRY_FRAMES
            self._trial = None
        is_late = latency_ms > self._deadline_ms
        # Late for having waited only, behind one that no engine held: not held either.
        is_behind_unheld = is_late and self._unheld_in_a_row > 0
        is_unheld = index == 0 and (latency_ms - age_ms > self._deadline_ms or is_behind_unheld)
        paid = LATE_COSTS_FRAMES if is_late and not is_unheld else 0
        self._credit = min(self._credit + 1, MOST_CREDIT_FRAMES) - paid
        self.num_frames += 1
        self.num_late += is_late
        self.num_unheld += is_unheld
        self._unheld_in_a_row = self._unheld_in_a_row + 1 if is_unheld else 0
        self.is_unheld = self.is_unheld or self._unheld_in_a_row == UNHELD_FRAMES
        return is_late

    def _expected_ms(self, index: int, num_frames: int) -> float:
        """Longest that the last frames would have taken on this engine, in milliseconds."""
        cost, longest = self._costs[index], 0.0
        if not self._loads:
            return cost
        for back in range(1, min(num_frames, len(self._loads)) + 1):
            longest = max(longest, self._others_ms[-back] + self._loads[-back] * cost)
        return longest

    def _largest(self, most: int, num_frames: int, limit_ms: float) -> int:
        """Largest engine up to ``most`` that is expected within the limit, or the smallest."""
        for index in range(most, 0, -1):
            if self._expected_ms(index, num_frames) <= limit_ms:
                return index
        return 0

    def _go_down(self, level: int) -> None:
        if self._trial == self.level:
            self._waits[self.level] = self._retries[self.level]
            self._retries[self.level] = min(2 * self._retries[self.level], MOST_RETRY_FRAMES)
            self._failed_loads[self.level] = self._trial_load
        self._switch(level)

    def _go_up(self, limit_ms: float) -> None:
        for index in range(len(self._costs) - 1, self.level, -1):
            if self._expected_ms(index, HOLD_FRAMES) <= limit_ms and not self._is_waiting(index):
                self._switch(index)
                self._trial, self._trial_load = index, max(self._loads)
                return

    def _is_waiting(self, index: int) -> bool:
        """Whether the engine was too slow at once, not long ago and under no more load than now."""
        return self._waits[index] > 0 and max(self._loads) > CLEARED_SHARE * self._failed_loads[index]

    def _switch(self, level: int) -> None:
        self.level, self._since_switch, self._trial = level, 0, None
        self.num_switches += 1


def check_deadline(deadline_ms: float) -> float:
    """Return the deadline in milliseconds; raise :class:`UsageError` unless it is a finite number above 0."""
    if isinstance(deadline_ms, bool) or not isinstance(deadline_ms, (int, float)) or not 0 < deadline_ms < math.inf:
        raise UsageError(f"a deadline is a number of milliseconds above 0, but got {deadline_ms!r}")
    return float(deadline_ms)


def _checked_costs(costs_ms: Sequence[float]) -> tuple[float, ...]:
    if not 1 <= len(costs_ms) <= MOST_ENGINES:
        raise UsageError(f"a deadline chooses among 1 to {MOST_ENGINES} engines, but got {len(costs_ms)}")
    for cost in costs_ms:
        if not 0 < cost < math.inf:
            raise UsageError(f"what an engine takes is a number of milliseconds above 0, but got {cost!r}")
    return tuple(map(float, costs_ms))
