"""Times of alternatives that take turns, for choices that a build makes by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

_ROUNDS = 7
_BUDGET_S = 3.0
"""Rounds, and the seconds after which no further one starts: one attention of SigLIP base at 896 takes 0.4 s a run."""

Key = TypeVar("Key")


def least_times_s(runs: Mapping[Key, Callable[[], object]]) -> dict[Key, float]:
    """Least seconds of each call, in turns."""
    times: dict[Key, list[float]] = {key: [] for key in runs}
    started = time.perf_counter()
    for number in range(_ROUNDS):
        if number > 1 and time.perf_counter() - started > _BUDGET_S:
            break
        for key, run in runs.items():
            before = time.perf_counter()
            run()
            times[key].append(time.perf_counter() - before)
    return {key: min(each) for key, each in times.items()}
