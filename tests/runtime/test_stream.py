"""The staged pipeline: order, overlap, bounded queues, errors in order, and thread shutdown."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from mvde.runtime.stream import pipeline


def _threads() -> int:
    return sum(thread.name.startswith("mvde-") for thread in threading.enumerate())


def _identity(item: int) -> int:
    return item


def _one(item: int) -> list[int]:
    return [item]


@pytest.mark.parametrize("num_lanes", [1, 2, 3])
def test_results_come_in_order(num_lanes: int) -> None:
    def uneven(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item

    assert list(pipeline(range(50), uneven, uneven, _one, num_lanes)) == list(range(50))
    assert _threads() == 0


def test_lanes_run_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=10)

    def meet(item: int) -> int:
        barrier.wait()
        return item

    assert list(pipeline(range(6), _identity, meet, _one, 2)) == list(range(6))


def test_stages_overlap() -> None:
    """All three stages wait at one barrier, which only opens if they run at the same time."""
    barrier = threading.Barrier(3, timeout=10)

    def meet(item: int) -> int:
        if item in range(2, 8):  # items at the ends have no neighbours
            with_neighbours[item] += 1
        return item

    with_neighbours = dict.fromkeys(range(2, 8), 0)
    waits = 6

    def prepare(item: int) -> int:
        if item >= 2 and item - 2 < waits:
            barrier.wait()
        return meet(item)

    def run(item: int) -> int:
        if item >= 1 and item - 1 < waits:
            barrier.wait()
        return meet(item)

    def finish(item: int) -> list[int]:
        if item < waits:
            barrier.wait()
        return [meet(item)]

    assert list(pipeline(range(8), prepare, run, finish)) == list(range(8))


def test_the_source_is_not_read_far_ahead_of_the_consumer() -> None:
    num_read = itertools.count()
    latest = 0

    def source() -> Iterator[int]:
        nonlocal latest
        for item in range(100):
            latest = next(num_read)
            yield item

    results = pipeline(source(), _identity, _identity, _one)
    next(results)
    time.sleep(0.3)
    assert latest < 15
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_lanes", [1, 2])
@pytest.mark.parametrize("stage", ["source", "prepare", "run", "finish"])
def test_an_error_is_raised_after_the_results_before_it(stage: str, num_lanes: int) -> None:
    def source() -> Iterator[int]:
        for item in range(10):
            if stage == "source" and item == 3:
                raise ValueError("third")
            yield item

    def work(name: str) -> object:
        def at_three(item: int) -> int:
            if stage == name and item == 3:
                raise ValueError("third")
            return item

        return at_three

    finish = work("finish")
    results = pipeline(source(), work("prepare"), work("run"), lambda item: [finish(item)], num_lanes)  # type: ignore[arg-type, operator]
    seen: list[int] = []
    with pytest.raises(ValueError, match="third"):
        seen.extend(results)
    assert seen == [0, 1, 2]
    assert _threads() == 0


def test_closing_early_ends_the_threads_and_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    results = pipeline(source(), _identity, _identity, _one)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()  # type: ignore[attr-defined]
    assert closed.wait(5)
    assert _threads() == 0


def test_an_empty_source_gives_nothing() -> None:
    assert list(pipeline([], _identity, _identity, _one)) == []
