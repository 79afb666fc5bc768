"""Shards on a Ray cluster: the worker of :mod:`mvde.bulk.work` as the actor of a Ray Data pool.

A shard is one row of the data set; what an actor returns is its report. An actor or node that is lost is replaced by
Ray, and its shards are done again: a file is published in one step, so doing one twice gives the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.artifact import list_graphs
from mvde.bulk.inputs import Shard
from mvde.bulk.local import Failure
from mvde.bulk.work import ShardReport, ShardWorker, Work, open_engine
from mvde.calibration.record import fp32_graph_sha256
from mvde.child_process import portable_error
from mvde.engines.machine import cpu_features, cpu_name
from mvde.engines.opened import OpenedEngine
from mvde.engines.store import check_machine, find
from mvde.errors import BackendError, IncompatibleEngineError, MissingDependencyError, MvdeError, OutputError

if TYPE_CHECKING:
    from mvde.bulk.run import Runner

LOCAL = "local"
_WAVE = 2048
"""Shards that the driver lists and hands to Ray at a time, so that a list of any length fits in memory."""
_CONNECT_S = 10.0
_SPARE_CPUS = 1
"""CPUs left for Ray Data's own tasks: a run with as many actors as CPUs waits for a task that never starts."""


def ray_runner(address: str, num_actors: int | None, export_dir: Path) -> Runner:
    """Runner on the cluster at ``address``, or on one of its own for ``"local"``.

    ``num_actors`` is at most the cluster's CPUs less one, which is the default. A node whose CPU the engine is not for
    builds one from the graph in ``export_dir``, which it has to see.

    The runner raises :class:`MissingDependencyError` without Ray, :class:`BackendError` for a cluster that cannot be
    reached or has too few CPUs.
    """

    def run(work: Work, shards: Iterable[Shard]) -> Iterator[ShardReport | Failure]:
        ray = _connected(address)
        try:
            actors = _num_actors(ray, num_actors)
            remaining = iter(shards)
            while wave := list(islice(remaining, _WAVE)):
                yield from _run_wave(ray, _Remote(work, export_dir.resolve()), wave, actors)
        finally:
            if address == LOCAL:
                ray.shutdown()

    return run


def _connected(address: str) -> Any:
    """Ray, connected. An address is always given: without one Ray joins whatever cluster it finds, even a dead one."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError.for_extra("ray", "ray", "mvde stats --ray") from error
    if not ray.is_initialized():
        _check_listening(address)
        try:
            local = {"num_cpus": _local_cpus(), "include_dashboard": False} if address == LOCAL else {}
            ray.init(address=address, log_to_driver=False, configure_logging=False, **local)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())
            raise BackendError(f"no Ray cluster at {address}: {reason}; is it running, and its port open?") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _check_listening(address: str) -> None:
    """Raise :class:`BackendError` if nobody listens at ``HOST:PORT``; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
            pass
    except OSError as error:
        raise BackendError(
            f"no Ray cluster at {address}: {error.strerror or error}; is it running, and its port open?"
        ) from error


def _local_cpus() -> int:
    return len(os.sched_getaffinity(0)) + _SPARE_CPUS


def _num_actors(ray: Any, wanted: int | None) -> int:
    most = int(ray.cluster_resources().get("CPU", 0)) - _SPARE_CPUS
    if most < 1:
        raise BackendError(
            "the Ray cluster has fewer than 2 CPUs: mvde needs one for its engine and Ray one for its tasks"
        )
    return most if wanted is None else min(wanted, most)


def _run_wave(ray: Any, remote: _Remote, wave: list[Shard], actors: int) -> Iterator[ShardReport | Failure]:
    rows = [{"shard": pickle.dumps(shard)} for shard in wave]
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(actors, len(wave)))
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor, fn_constructor_args=(remote,), compute=pool, num_cpus=1
    )
    try:
        for row in done.iter_rows():
            answer: ShardReport | Failure | Exception = pickle.loads(row["answer"])
            if isinstance(answer, Exception):
                raise answer
            yield answer
    except ray.exceptions.RayError as error:
        raise BackendError(
            f"Ray ended the run: {' '.join(str(error).split())[:500]}; run it again to continue"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Remote:
    """What an actor is created with."""

    work: Work
    export_dir: Path


class _Actor:
    """A worker in Ray's process; errors are returned, since Ray would run the shard again."""

    def __init__(self, remote: _Remote) -> None:
        self._remote = remote
        self._worker: ShardWorker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Run a pickled shard; the answer is a pickled report, a failure of the shard, or an error of the whole run."""
        shard: Shard = pickle.loads(row["shard"])
        answer: ShardReport | Failure | Exception
        try:
            self._worker = self._worker or ShardWorker(self._remote.work, engine_here(self._remote))
            answer = self._worker.run(shard)
        except MvdeError as error:
            is_general = self._worker is None or isinstance(error, OutputError)
            answer = portable_error(error) if is_general else Failure(shard.name, str(error))
        return {"answer": pickle.dumps(answer)}


def engine_here(remote: _Remote) -> OpenedEngine:
    """The work's engine, or one built on this node for its CPU, once for all its actors.

    Raises :class:`IncompatibleEngineError` with the command where it cannot be built.
    """
    opened = open_engine(remote.work.engine)
    try:
        check_machine(opened.manifest, str(remote.work.engine))
    except IncompatibleEngineError as error:
        return _built_here(opened, remote, error)
    return opened


def _built_here(opened: OpenedEngine, remote: _Remote, reason: IncompatibleEngineError) -> OpenedEngine:
    """Build the engine's graph into this user's cache, in a process of its own, unless another actor has."""
    wanted = fp32_graph_sha256(opened.manifest)
    graphs = [graph for graph in list_graphs(remote.export_dir) if graph.manifest.file.sha256 == wanted]
    if not graphs:
        raise IncompatibleEngineError(
            f"{reason}; for nodes that build their own, give the folder of its graph: --export-dir "
            f"(no graph {wanted[:12]}... in {remote.export_dir} on this node)"
        )
    engine_id, folder = opened.manifest.engine.id, _cache() / f"{wanted[:16]}-{_cpu_digest()}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(MvdeError):  # not built yet, or for another version of the library
            return _checked(engine_id, folder)
        command = ["build", str(graphs[0].path), "--engine", engine_id, "--out", str(folder)]
        done = subprocess.run([sys.executable, "-m", "mvde", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2]
            raise IncompatibleEngineError(f"{reason}; on this node `mvde {' '.join(command)}` failed: {said}")
        return _checked(engine_id, folder)


def _checked(engine_id: str, folder: Path) -> OpenedEngine:
    """The engine that was built into a folder, if it is for this machine."""
    opened = open_engine(find(engine_id, root=folder).path)
    check_machine(opened.manifest, str(folder))
    return opened


def _cpu_digest() -> str:
    """Hash of this machine's type of CPU: nodes of several types may share a home directory."""
    return hashlib.sha256(repr((cpu_name(), sorted(cpu_features()))).encode()).hexdigest()[:8]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvde/engines"
