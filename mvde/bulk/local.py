"""Worker processes on this machine; one that dies is replaced, and its shard is done again."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from mvde.bulk.inputs import Shard
from mvde.bulk.work import ShardReport, ShardWorker, Work, open_engine
from mvde.child_process import ChildTraceback, end_with_the_parent, how_it_ended, portable_error
from mvde.errors import MvdeError, OutputError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from mvde.engines.opened import OpenedEngine

MAX_ATTEMPTS = 3
"""Times that a shard is begun before it is given up: a picture may crash a decoder or fill the memory."""
_JOIN_S = 5.0


@dataclass(frozen=True)
class Failure:
    """A shard that could not be done, and why."""

    shard: str
    reason: str


@dataclass
class _Member:
    """A worker process, the connection to it, and the shard it has."""

    process: SpawnProcess
    channel: connection.Connection
    shard: Shard | None = None


def run_local(work: Work, shards: Iterable[Shard], num_workers: int) -> Iterator[ShardReport | Failure]:
    """Yield a report for each shard as it is finished, in any order; ``shards`` are taken as workers are free.

    Raises the error of a worker that cannot load the engine, and :class:`OutputError` if the output cannot be written:
    what is finished stays. Processes are spawned, share one copy of the engine's files, and end with this one.
    """
    pool = _Pool(work, num_workers)
    try:
        yield from pool.run(iter(shards))
    finally:
        pool.close()


class _Pool:
    def __init__(self, work: Work, num_workers: int) -> None:
        self._work, self._opened = work, open_engine(work.engine)
        self._context = multiprocessing.get_context("spawn")
        self._members: list[_Member] = []
        self._num_workers = num_workers
        self._attempts: dict[str, int] = {}
        self._again: list[Shard] = []

    def run(self, shards: Iterator[Shard]) -> Iterator[ShardReport | Failure]:
        while True:
            self._hand_out(shards)
            busy = [member for member in self._members if member.shard is not None]
            if not busy:
                return
            ready = connection.wait([member.channel for member in busy])  # a channel also ends when its worker does
            for member in busy:
                if member.channel in ready:
                    yield from self._taken(member)

    def close(self) -> None:
        for member in self._members:
            member.process.terminate()
        for member in self._members:
            member.process.join(_JOIN_S)
            if member.process.is_alive():
                member.process.kill()
            member.channel.close()

    def _hand_out(self, shards: Iterator[Shard]) -> None:
        """Give every free worker a shard, starting workers while there is work for them."""
        free = [member for member in self._members if member.shard is None]
        while free or len(self._members) < self._num_workers:
            shard = self._again.pop() if self._again else next(shards, None)
            if shard is None:
                return
            member = free.pop() if free else self._start()
            self._attempts[shard.name] = self._attempts.get(shard.name, 0) + 1
            member.shard = shard
            with contextlib.suppress(OSError):  # it has died; its sentinel says so
                member.channel.send(shard)

    def _start(self) -> _Member:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(self._work, self._opened, theirs), daemon=True)
        process.start()
        theirs.close()
        member = _Member(process, ours)
        self._members.append(member)
        return member

    def _taken(self, member: _Member) -> Iterator[ShardReport | Failure]:
        """What a worker answered, or its replacement's work if it died without an answer."""
        shard = member.shard
        assert shard is not None, "only busy workers are waited for"
        try:
            answer = member.channel.recv()
        except (EOFError, OSError):
            yield from self._bury(member, shard)
            return
        member.shard = None
        self._attempts.pop(shard.name, None)
        if isinstance(answer, _Raised):
            yield self._failure(shard, answer)
        else:
            yield answer

    def _bury(self, member: _Member, shard: Shard) -> Iterator[Failure]:
        member.process.join()
        self._members.remove(member)
        member.channel.close()
        if self._attempts[shard.name] < MAX_ATTEMPTS:
            self._again.append(shard)
            return
        how = how_it_ended(f"computed {shard.name}", member.process.exitcode, "use fewer --workers")
        yield Failure(shard.name, f"{how}; it was begun {MAX_ATTEMPTS} times")

    def _failure(self, shard: Shard, answer: _Raised) -> Failure:
        """A shard's own failure; what concerns every shard is raised."""
        error = answer.error
        error.__cause__ = ChildTraceback(f"computed {shard.name}", answer.trace)
        if answer.is_at_start or isinstance(error, OutputError) or not isinstance(error, MvdeError):
            raise error
        return Failure(shard.name, str(error))


@dataclass(frozen=True)
class _Raised:
    """An error of a worker, while it loaded the engine or computed a shard."""

    error: Exception
    trace: str
    is_at_start: bool


def _serve(work: Work, opened: OpenedEngine, channel: connection.Connection) -> None:
    """Compute the shards that come through the channel until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent, which ends the workers
    end_with_the_parent()
    worker: ShardWorker | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            shard: Any = channel.recv()
            try:
                worker = worker or ShardWorker(work, opened)
                channel.send(worker.run(shard))
            except (Exception, MemoryError) as error:  # noqa: BLE001 - handed to the parent
                channel.send(_Raised(portable_error(error), traceback.format_exc(), worker is None))
