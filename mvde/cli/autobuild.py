"""Building of missing engines for `mvde run` and `mvde bench`, in a child process before they start.

The child process isolates the benchmark from the build: memory, CPU affinity and library caches.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.child_process import ChildTraceback, end_with_the_parent, how_it_ended, portable_error
from mvde.cli.terminal import say
from mvde.errors import ArtifactError, BackendError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from mvde.artifact import GraphArtifact
    from mvde.cli.shared_options import EngineSelection

_DOING = "builds the engine"

LOCK_FILE = ".build.lock"
"""Lock file in the engine folder. The kernel releases the lock when its holder exits; the file stays."""


@dataclass(frozen=True)
class MissingEngine:
    """An engine to build: its id (``None``: the fastest supported one), source graph and destination."""

    engine_id: str | None
    graph: Path
    engine_dir: Path
    name: str
    resolution: tuple[int, int]
    batch: int

    @property
    def command(self) -> str:
        """Equivalent `mvde build` command line."""
        engine = f" --engine {self.engine_id}" if self.engine_id else ""
        out = f" --out {self.engine_dir}" if self.engine_dir != Path("engines") else ""
        return f"mvde build {self.graph}{engine}{out}"


def build_missing(selection: EngineSelection, cpus: Sequence[int] | None = None) -> None:
    """Build every missing engine that the selection names by id, or the default engine.

    Existing engines are kept even if unusable: loading them reports the problem. If no graph matches, nothing is built
    and the engine lookup reports it. ``cpus`` is the CPU affinity of the build.

    Raises :class:`ArtifactError` if several graphs match, listing them, or under ``--no-build``, with the command.
    """
    for missing in list(_missing(selection)):
        if selection.no_build:
            raise ArtifactError(
                f"{_called(missing.engine_id)} is built, and --no-build was given; build it: {missing.command}"
            )
        _build_in_child(missing, cpus)


def _missing(selection: EngineSelection) -> Iterator[MissingEngine]:
    from mvde.engines.base import EngineId

    for resolution in selection.wanted_resolutions:
        for text in selection.engine or (None,):
            if text is not None and not EngineId.matches_grammar(text):
                continue  # an engine folder
            engine_id = None if text is None else str(EngineId.parse(text))
            if _is_built(engine_id, selection.name, resolution, selection.batch, selection.engine_dir):
                continue
            graph = _graph_of(engine_id, selection, resolution)
            if graph is not None:
                made = graph.manifest
                yield MissingEngine(engine_id, graph.path, selection.engine_dir, made.name, made.resolution, made.batch)


def _is_built(
    engine_id: str | None, name: str | None, resolution: tuple[int, int] | None, batch: int | None, folder: Path
) -> bool:
    """Whether :func:`mvde.artifact.find_engines` would find a matching engine."""
    from mvde.artifact import list_engines

    return any(
        (name is None or name in {found.manifest.name, found.path.parent.name})
        and resolution in {None, found.manifest.resolution}
        and batch in {None, found.manifest.batch}
        and engine_id in {None, found.manifest.engine.id, str(found.manifest.engine.precision)}
        for found in list_engines(folder)
    )


def _graph_of(
    engine_id: str | None, selection: EngineSelection, resolution: tuple[int, int] | None
) -> GraphArtifact | None:
    """The only matching fp32 graph; None if there is none."""
    from mvde.artifact import list_graphs

    there = [
        found
        for found in list_graphs(selection.export_dir)
        if found.manifest.lowering is None
        and selection.name in {None, found.manifest.name}
        and resolution in {None, found.manifest.resolution}
        and selection.batch in {None, found.manifest.batch}
    ]
    if len(there) > 1:
        raise ArtifactError(
            f"{_called(engine_id)} is built, and {selection.export_dir}/ holds several graphs to build it from: "
            f"{'; '.join(map(str, there))}; say which with --res, --batch or --name, or build them all: mvde build"
            + (f" --engine {engine_id}" if engine_id else "")
        )
    return there[0] if there else None


def _called(engine_id: str | None) -> str:
    return f"no engine {engine_id}" if engine_id else "no engine that fits"


def _build_in_child(missing: MissingEngine, cpus: Sequence[int] | None) -> None:
    """Build in a child process, re-raising its error; on Ctrl-C, terminate the child and wait for it."""
    context = multiprocessing.get_context("spawn")  # forking a multi-threaded process can deadlock
    line, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, missing, cpus), name="mvde-build", daemon=True)
    resource_tracker.ensure_running()  # otherwise start() does it and unblocks SIGINT
    try:
        with _ctrl_c_held_back():
            process.start()
        theirs.close()  # otherwise recv() sees no EOF when the child exits
        error, trace = line.recv()
    except EOFError as ended:
        process.join()
        raise BackendError(how_it_ended(_DOING, process.exitcode, "use a smaller resolution or batch")) from ended
    except BaseException:
        if process.is_alive():
            process.terminate()
        raise
    finally:
        if process.pid is not None:
            process.join()
        line.close()
    if error is not None:
        raise error from ChildTraceback(_DOING, trace)


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Block SIGINT during the block; a child started inside inherits the mask.

    Ctrl-C signals the whole process group, but only this process should terminate the child, and once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(line: Connection, missing: MissingEngine, cpus: Sequence[int] | None) -> None:
    """Entry point of the child: build, and send the result."""
    signal.signal(signal.SIGTERM, _interrupt)
    end_with_the_parent()
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    try:
        _build_once(missing)
        line.send((None, ""))
    except KeyboardInterrupt:
        return
    except Exception as error:  # noqa: BLE001 - re-raised in the parent
        with contextlib.suppress(OSError):  # the parent has exited
            line.send((portable_error(error), traceback.format_exc()))


def _interrupt(number: int, frame: object) -> None:
    """Unwind the stack to remove partial files, ignoring further signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _build_once(missing: MissingEngine) -> None:
    """Build under the lock, unless another process has built the engine meanwhile."""
    from mvde.artifact import load_graph
    from mvde.cli.building import BuildRequest, build_one, warn
    from mvde.engines.base import BuildOptions, EngineId
    from mvde.engines.store import best_engine_id, resolve

    with _locked(missing.engine_dir):
        if _is_built(missing.engine_id, missing.name, missing.resolution, missing.batch, missing.engine_dir):
            return
        wanted = EngineId.parse(missing.engine_id) if missing.engine_id else best_engine_id()
        engine_id = resolve(wanted)
        source = load_graph(missing.graph)
        say(f"mvde: building {engine_id} from {missing.graph} (not built yet)", file=sys.stderr)
        warn(build_one(BuildRequest(source, engine_id, missing.engine_dir, BuildOptions())))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an engine folder, with a message while waiting for another process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"mvde: waiting for another process that is building in {folder}/", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
