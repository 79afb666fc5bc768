"""libmvde's policy of engines with a deadline decides as the specification does, given the same latencies."""

from __future__ import annotations

import ctypes
import random

import pytest

from mvde import native
from mvde.runtime.deadline import DeadlinePolicy


class Counters(ctypes.Structure):
    """``mvde_deadline_counters``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("level", ctypes.c_int32),
        ("is_unheld", ctypes.c_int32),
        ("num_frames", ctypes.c_int64),
        ("num_late", ctypes.c_int64),
        ("num_unheld", ctypes.c_int64),
        ("num_switches", ctypes.c_int64),
    )


class NativePolicy:
    """The policy of libmvde."""

    def __init__(self, library: ctypes.CDLL, costs_ms: list[float], deadline_ms: float) -> None:
        self._library, self._handle = library, ctypes.c_void_p()
        costs = (ctypes.c_double * len(costs_ms))(*costs_ms)
        deadline = ctypes.c_double(deadline_ms)
        assert library.mvde_deadline_create(costs, len(costs_ms), deadline, ctypes.byref(self._handle)) == 0

    def choose(self, age_ms: float) -> int:
        index = ctypes.c_int32(-1)
        assert self._library.mvde_deadline_choose(self._handle, ctypes.c_double(age_ms), ctypes.byref(index)) == 0
        return index.value

    def observe(self, index: int, *times_ms: float) -> None:
        assert self._library.mvde_deadline_observe(self._handle, index, *map(ctypes.c_double, times_ms)) == 0

    def counters(self) -> tuple[int, ...]:
        found = Counters(struct_size=ctypes.sizeof(Counters))
        assert self._library.mvde_deadline_count(self._handle, ctypes.byref(found)) == 0
        return tuple(getattr(found, name) for name, _ in Counters._fields_[1:])

    def close(self) -> None:
        self._library.mvde_deadline_destroy(self._handle)


@pytest.mark.parametrize("seed", range(4))
def test_it_decides_as_the_specification_whatever_frames_take(seed: int) -> None:
    if not native.is_available():
        pytest.skip("libmvde is not built")
    rng = random.Random(seed)
    costs_ms = sorted(rng.uniform(3, 40) for _ in range(rng.randint(2, 5)))
    deadline_ms = costs_ms[-1] * rng.uniform(1.3, 1.6) + 10
    specification = DeadlinePolicy(costs_ms, deadline_ms)
    policy = NativePolicy(native._require(), costs_ms, deadline_ms)
    try:
        for number in range(1000):
            load = (1.0, 1.3, 1.0, 2.0, 1.0, 5.0)[number // 50 % 6]
            age_ms = rng.uniform(0, deadline_ms) if rng.random() < 0.02 else 0.0
            index = specification.choose(age_ms)
            assert policy.choose(age_ms) == index, number
            network_ms = costs_ms[index] * load * (1 + abs(rng.gauss(0, 0.1)))
            latency_ms = age_ms + network_ms + rng.uniform(0, 5)
            specification.observe(index, network_ms, latency_ms, age_ms)
            policy.observe(index, network_ms, latency_ms, age_ms)
        counts = ("num_frames", "num_late", "num_unheld", "num_switches")
        counted = [getattr(specification, name) for name in counts]
        assert policy.counters() == (specification.level, specification.is_unheld, *counted)
        assert specification.num_switches >= 3
    finally:
        policy.close()
