"""Multi-threaded pipeline with bounded queues that preserves order, including that of errors."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mvde.errors import UsageError

T = TypeVar("T")

_CAPACITY = 2  # enough to overlap the stages, while results are never more than a few frames old
_POLL_S = 0.05


class _End:
    """End marker of a queue, with the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def pipeline(
    source: Iterable[Any],
    prepare: Callable[[Any], Any],
    run: Callable[[Any], Any],
    finish: Callable[[Any], Iterable[Any]],
) -> Iterator[Any]:
    """Yield the items of ``finish(run(prepare(item)))`` for each item of ``source``, in order, one thread per stage.

    ``source`` is iterated in the first thread. Closing the iterator early stops the threads after their current item; a
    source that blocks forever is abandoned in a daemon thread. Continuing in a forked child, where the threads do not
    exist, raises :class:`UsageError`.
    """
    process = os.getpid()
    stop = threading.Event()
    prepared, ran, finished = (queue.Queue[Any](_CAPACITY) for _ in range(3))
    stages = [
        threading.Thread(target=_feed, args=(source, prepare, prepared, stop), name="mvde-prepare", daemon=True),
        threading.Thread(target=_stage, args=(prepared, run, ran, stop), name="mvde-infer", daemon=True),
        threading.Thread(target=_stage, args=(ran, finish, finished, stop), name="mvde-finish", daemon=True),
    ]
    for stage in stages:
        stage.start()
    try:
        while not isinstance(item := finished.get(), _End):
            for one in item:
                yield one
                if os.getpid() != process:
                    raise UsageError(
                        "this stream began before the process was forked, and its threads are not in the child: "
                        "begin a stream in the process that iterates it"
                    )
        if item.error is not None:
            raise item.error
    finally:
        if os.getpid() == process:
            _end(stages, stop)


def _end(stages: list[threading.Thread], stop: threading.Event) -> None:
    """Stop the threads after their current item; do not wait long for a blocked source."""
    stop.set()
    for stage in stages[1:]:
        stage.join()
    stages[0].join(timeout=1.0)


def _feed(source: Iterable[Any], work: Callable[[Any], Any], target: queue.Queue[Any], stop: threading.Event) -> None:
    try:
        for item in source:
            if stop.is_set() or not _put(target, work(item), stop):
                return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
        _put(target, _End(error), stop)
    else:
        _put(target, _End(), stop)


def _stage(
    source: queue.Queue[Any], work: Callable[[Any], Any], target: queue.Queue[Any], stop: threading.Event
) -> None:
    """Process items until the end marker or until the consumer stops."""
    while (item := _get(source, stop)) is not None:
        if not isinstance(item, _End):
            try:
                item = work(item)
            except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
                item = _End(error)
        if not _put(target, item, stop) or isinstance(item, _End):
            return


def _get(source: queue.Queue[Any], stop: threading.Event) -> Any:
    """Next item, or ``None`` once the consumer has stopped."""
    while not stop.is_set():
        try:
            return source.get(timeout=_POLL_S)
        except queue.Empty:
            continue
    return None


def _put(target: queue.Queue[Any], item: Any, stop: threading.Event) -> bool:
    """Put the item; return False if the consumer has stopped."""
    while not stop.is_set():
        try:
            target.put(item, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last of the rest."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
