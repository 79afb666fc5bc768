"""The policy of several engines with a deadline, on simulated latencies: late frames, switches, retries, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from mvde.errors import UsageError
from mvde.runtime.deadline import HOLD_FRAMES, RETRY_FRAMES, UNHELD_FRAMES, DeadlinePolicy

COSTS_MS = (8.0, 14.0, 22.0)
OTHER_MS = 3.0
DEADLINE_MS = 33.0
FPS = 30


@dataclass
class Run:
    """What became of a simulated camera's frames."""

    levels: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    num_late: int = 0
    num_late_needlessly: int = 0
    """Late although the smallest engine would have been in time, had it begun when this frame was captured."""


def simulate(
    policy: DeadlinePolicy,
    load: Callable[[float], float],
    *,
    num_frames: int = 3000,
    noise: float = 0.0,
    larger_suffer: float = 0.0,
    seed: int = 0,
) -> Run:
    """Take the newest frame of a camera whenever one is done; ``load(s)`` multiplies what networks take."""
    rng, run = np.random.default_rng(seed), Run()
    now_ms, number, period_ms = 0.0, 0, 1000 / FPS
    while number < num_frames:
        captured_ms = number * period_ms
        now_ms = max(now_ms, captured_ms)
        index = policy.choose(now_ms - captured_ms)
        factor, jitter = load(now_ms / 1000), math.exp(abs(rng.normal()) * noise)
        costs = [ms * (1 + (factor - 1) * (1 + larger_suffer * at)) * jitter for at, ms in enumerate(COSTS_MS)]
        age_ms = now_ms - captured_ms
        latency_ms = age_ms + costs[index] + OTHER_MS
        is_late = policy.observe(index, costs[index], latency_ms, age_ms)
        assert is_late == (latency_ms > DEADLINE_MS)
        run.levels.append(index)
        run.numbers.append(number)
        run.num_late += is_late
        run.num_late_needlessly += is_late and costs[0] + OTHER_MS <= DEADLINE_MS
        now_ms = captured_ms + latency_ms
        number = max(number + 1, int(now_ms / period_ms))
    return run


def comes_and_goes(period_s: float, factor: float) -> Callable[[float], float]:
    """A load that is there in the second half of each period."""
    return lambda time_s: factor if time_s % period_s >= period_s / 2 else 1.0


def at_frame(first: int, last: int, factor: float) -> Callable[[float], float]:
    """A load from one frame's capture to another's."""
    return lambda time_s: factor if first / FPS - 1e-9 <= time_s < last / FPS - 1e-9 else 1.0


@pytest.mark.parametrize("period_s", [4.0, 20.0])
@pytest.mark.parametrize(("noise", "larger_suffer"), [(0.03, 0.0), (0.1, 0.3)])
def test_at_most_one_in_a_hundred_frames_is_late_where_the_smallest_could_hold_them(
    period_s: float, noise: float, larger_suffer: float
) -> None:
    policy = DeadlinePolicy(COSTS_MS, DEADLINE_MS)
    run = simulate(policy, comes_and_goes(period_s, 2.2), noise=noise, larger_suffer=larger_suffer)
    assert run.num_late_needlessly <= 0.01 * len(run.levels)
    assert run.num_late == policy.num_late
    assert len(run.levels) == policy.num_frames
    assert np.mean(run.levels) > 0.25, "the smallest alone would be no choice"


def test_the_largest_in_time_is_used_without_load() -> None:
    policy = DeadlinePolicy(COSTS_MS, DEADLINE_MS)
    run = simulate(policy, lambda _: 1.0, num_frames=200, noise=0.02)
    assert set(run.levels) == {2}
    assert policy.num_switches == policy.num_late == 0


def test_a_load_is_answered_within_two_frames_and_its_end_within_half_a_second() -> None:
    run = simulate(DeadlinePolicy(COSTS_MS, DEADLINE_MS), at_frame(100, 200, 2.2), num_frames=300)
    levels = dict(zip(run.numbers, run.levels, strict=True))
    assert levels[99] == 2
    first_small = min(number for number, level in levels.items() if level == 0)
    assert 100 < first_small <= 102
    assert max(levels[number] for number in levels if 102 <= number < 200) == 0
    assert min(number for number, level in levels.items() if number >= 200 and level == 2) <= 200 + FPS // 2


def test_frames_that_wait_for_one_that_no_engine_holds_are_not_paid_for() -> None:
    """A load at which the smallest is late in many frames, and holds those between but for their waiting."""
    policy = DeadlinePolicy(COSTS_MS, DEADLINE_MS)
    run = simulate(policy, at_frame(100, 1000, 3.4), num_frames=1100, noise=0.3)
    levels = dict(zip(run.numbers, run.levels, strict=True))
    assert policy.num_late > 200
    assert policy.num_late - policy.num_unheld <= 3
    assert policy.is_unheld
    assert min(number for number, level in levels.items() if number >= 1000 and level > 0) <= 1000 + FPS


def test_a_small_load_costs_one_step_and_no_late_frame() -> None:
    policy = DeadlinePolicy((8.0, 14.0, 26.0), DEADLINE_MS + 3)
    policy.level = 2
    for _ in range(20):
        policy.observe(policy.choose(), 26.0, 29.0)
    policy.observe(policy.choose(), 26.0 * 1.21, 26.0 * 1.21 + 3)  # 34.5 of 36 ms: in time, but close
    assert policy.choose() == 1
    assert policy.num_late == 0


def test_noise_between_two_thresholds_does_not_alternate() -> None:
    policy = DeadlinePolicy((8.0, 27.0), DEADLINE_MS)  # 27 + 3 is above 85 % and below 95 % of 33 ms
    levels = []
    for number in range(300):
        levels.append(policy.choose())
        network_ms = (8.0, 27.0)[levels[-1]] * (1 + 0.02 * (number % 2))
        policy.observe(levels[-1], network_ms, network_ms + OTHER_MS)
    assert policy.num_switches <= 1


def test_an_engine_that_is_slower_than_expected_is_tried_less_and_less() -> None:
    policy = DeadlinePolicy((8.0, 20.0), DEADLINE_MS)
    tried = []
    for number in range(10 * RETRY_FRAMES):
        index = policy.choose()
        if index == 1:
            tried.append(number)
        network_ms = (8.0, 40.0)[index]  # twice what was measured alone
        policy.observe(index, network_ms, network_ms + OTHER_MS)
    gaps = np.diff(tried)
    assert len(tried) >= 3
    assert all(gaps[1:] > gaps[:-1])
    assert gaps[0] >= RETRY_FRAMES


def test_it_is_tried_at_once_where_the_load_has_gone() -> None:
    policy = DeadlinePolicy((8.0, 20.0), DEADLINE_MS)
    for factors in [(1.0, 1.0)] * 200 + [(3.0, 3.0)] + [(1.2, 1.6)] * 40:  # at last, the larger one fails unexpectedly
        index = policy.choose()
        network_ms = (8.0, 20.0)[index] * factors[index]
        policy.observe(index, network_ms, network_ms + OTHER_MS)
    assert policy.num_switches == 3
    assert policy.level == 0
    for _ in range(HOLD_FRAMES + 1):
        index = policy.choose()
        policy.observe(index, (8.0, 20.0)[index] * 0.9, (8.0, 20.0)[index] * 0.9 + OTHER_MS)
    assert policy.choose() == 1


def test_a_frame_that_has_waited_gets_a_smaller_engine() -> None:
    policy = DeadlinePolicy(COSTS_MS, DEADLINE_MS)
    policy.observe(policy.choose(), COSTS_MS[2], COSTS_MS[2] + OTHER_MS)
    assert policy.choose(age_ms=0) == 2
    assert policy.choose(age_ms=14) == 1
    assert policy.choose(age_ms=25) == 0


def test_a_deadline_that_no_engine_holds_is_said_once_and_counted() -> None:
    policy = DeadlinePolicy((40.0, 80.0), DEADLINE_MS)
    said = []
    for _ in range(3 * UNHELD_FRAMES):
        assert policy.choose() == 0
        policy.observe(0, 40.0, 43.0)
        said.append(policy.is_unheld)
    assert said.index(True) == UNHELD_FRAMES - 1
    assert policy.num_unheld == policy.num_late == 3 * UNHELD_FRAMES


@pytest.mark.parametrize("deadline", [0, -1, math.nan, math.inf, "33", True])
def test_a_deadline_that_is_no_time_is_refused(deadline: object) -> None:
    with pytest.raises(UsageError, match="a deadline is a number of milliseconds above 0, but got"):
        DeadlinePolicy([8.0], deadline)  # type: ignore[arg-type]


@pytest.mark.parametrize("costs", [[], [1.0] * 17, [8.0, 0.0], [math.nan]])
def test_costs_that_are_none_are_refused(costs: list[float]) -> None:
    with pytest.raises(UsageError, match=r"a deadline chooses among 1 to 16|above 0, but got"):
        DeadlinePolicy(costs, DEADLINE_MS)
