"""Latency distributions, end of warm-up and drift, on series with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.bench.distribution import Distribution, drift, is_steady, warm_up


def test_quantiles_are_times_that_occurred() -> None:
    times = [float(value) for value in range(1, 1001)]
    found = Distribution.of(times)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.p99_9_ms, found.max_ms) == (501, 901, 991, 1000, 1000)
    assert found.mean_ms == pytest.approx(500.5)
    assert Distribution.of([1.0, 1.0, 100.0]).p99_ms == 100


def test_jitter_is_the_mean_step_from_one_frame_to_the_next() -> None:
    assert Distribution.of([10.0, 12.0, 10.0, 12.0]).jitter_ms == 2
    assert Distribution.of([10.0, 11.0, 12.0, 13.0]).jitter_ms == 1
    assert Distribution.of([5.0]).jitter_ms == 0
    sawtooth, ramp = [10.0, 20.0] * 50, [*np.linspace(10, 20, 100)]
    assert Distribution.of(ramp).jitter_ms < 0.02 * Distribution.of(sawtooth).jitter_ms


@pytest.mark.parametrize("seed", range(5))
def test_a_warm_up_is_found_where_it_ends(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slow, level = [90.0, 30.0, 25.0, 22.0], 20 + 0.2 * rng.standard_normal(30)
    found = warm_up([*slow, *level])
    assert (found.num_frames, found.is_steady, len(found.times_ms)) == (4, True, 34)


def test_one_slow_frame_in_the_middle_is_no_warm_up() -> None:
    times = [20.0] * 30
    times[6] = 200.0
    assert warm_up(times).num_frames == 0
    assert is_steady(times[:10])


def test_times_that_still_fall_are_not_steady() -> None:
    falling = [100 * 0.97**index for index in range(40)]
    assert not any(is_steady(falling[:length]) for length in range(1, 41))
    assert not warm_up(falling).is_steady
    assert not is_steady([5.0] * 9), "nine frames are fewer than two windows of five"


def test_a_slowdown_shows_as_drift() -> None:
    assert drift([10.0] * 30) == 1
    assert drift([10.0] * 10 + [11.0] * 10 + [12.0] * 10) == pytest.approx(1.2)
    assert drift([3.0]) == 1
