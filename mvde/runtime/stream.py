"""Multi-threaded pipeline with bounded queues that preserves order, including that of errors."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, repeat
from typing import Any, TypeVar

from mvde.errors import UsageError

T = TypeVar("T")
Items = queue.Queue[Any]

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
    num_lanes: int = 1,
) -> Iterator[Any]:
    """Yield the items of ``finish(run(prepare(item)))`` for each item of ``source``, in order, one thread per stage.

    ``run`` has ``num_lanes`` threads, which take items in turn. ``source`` is iterated in the first thread. Closing the
    iterator early stops the threads after their current item; a source that blocks forever is abandoned in a daemon
    thread. Continuing in a forked child, where the threads do not exist, raises :class:`UsageError`.
    """
    process = os.getpid()
    stop = threading.Event()
    prepared, ran = ([Items(max(_CAPACITY // num_lanes, 1)) for _ in range(num_lanes)] for _ in range(2))
    finished = Items(_CAPACITY)
    stages = [_thread("mvde-prepare", _feed, source, prepare, cycle(prepared), stop)]
    stages += [
        _thread("mvde-infer", _stage, repeat(lane), run, repeat(target), stop)
        for lane, target in zip(prepared, ran, strict=True)
    ]
    stages.append(_thread("mvde-finish", _stage, cycle(ran), finish, repeat(finished), stop))
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


def _thread(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    return threading.Thread(target=target, args=args, name=name, daemon=True)


def _end(stages: list[threading.Thread], stop: threading.Event) -> None:
    """Stop the threads after their current item; do not wait long for a blocked source."""
    stop.set()
    for stage in stages[1:]:
        stage.join()
    stages[0].join(timeout=1.0)


def _feed(source: Iterable[Any], work: Callable[[Any], Any], targets: Iterator[Items], stop: threading.Event) -> None:
    try:
        for item in source:
            if stop.is_set():
                return
            worked = work(item)  # before the target's turn, which an error takes instead
            if not _put(next(targets), worked, stop):
                return
    except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
        _put(next(targets), _End(error), stop)
    else:
        _put(next(targets), _End(), stop)


def _stage(
    sources: Iterator[Items], work: Callable[[Any], Any], targets: Iterator[Items], stop: threading.Event
) -> None:
    """Process items, each from the next source to the next target, until the end or until the consumer stops."""
    while (item := _get(next(sources), stop)) is not None:
        if not isinstance(item, _End):
            try:
                item = work(item)
            except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
                item = _End(error)
        if not _put(next(targets), item, stop) or isinstance(item, _End):
            return


def _get(source: Items, stop: threading.Event) -> Any:
    """Next item, or ``None`` once the consumer has stopped."""
    while not stop.is_set():
        try:
            return source.get(timeout=_POLL_S)
        except queue.Empty:
            continue
    return None


def _put(target: Items, item: Any, stop: threading.Event) -> bool:
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
