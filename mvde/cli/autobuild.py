"""What `mvde run` and `mvde bench` name and nobody has built yet: built once, before they start, in its own process.

The process keeps a build out of what a benchmark measures: its memory, its pinned CPUs and the libraries' caches.
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
"""In the folder of engines. The system releases a lock when its holder ends, however that happens; the file stays."""


@dataclass(frozen=True)
class MissingEngine:
    """An engine to build: its id (``None``: the best one here), the graph it is built from, and where it goes."""

    engine_id: str | None
    graph: Path
    engine_dir: Path
    name: str
    resolution: tuple[int, int]
    batch: int

    @property
    def command(self) -> str:
        """The command line that builds it."""
        engine = f" --engine {self.engine_id}" if self.engine_id else ""
        out = f" --out {self.engine_dir}" if self.engine_dir != Path("engines") else ""
        return f"mvde build {self.graph}{engine}{out}"


def build_missing(selection: EngineSelection, cpus: Sequence[int] | None = None) -> None:
    """Build every engine that the selection names by id, or leaves to mvde, and that is not there.

    An engine that is there is left alone, whatever its state: loading it says what is wrong and how to mend it. Where
    no graph fits, nothing is built, and looking for the engine says so. ``cpus`` are those that a build may use.

    Raises :class:`ArtifactError` where several graphs fit, listing them, or with the command under ``--no-build``.
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
                continue  # a folder
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
    """Whether an engine matches, as :func:`mvde.artifact.find_engines` would find it."""
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
    """The one fp32 graph that fits, ``None`` without any."""
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
    """Build in a process of its own. Raises what was raised there; Ctrl-C is passed on, and waits for its end."""
    context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
    line, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, missing, cpus), name="mvde-build", daemon=True)
    resource_tracker.ensure_running()  # which start() would do otherwise, and let Ctrl-C through again
    try:
        with _ctrl_c_held_back():
            process.start()
        theirs.close()  # so that the end of the child is the end of the line
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
    """Hold Ctrl-C back until the block has ended; a child that is started inside never gets it.

    It reaches the whole group, but this process is the one that ends the child, and once.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(line: Connection, missing: MissingEngine, cpus: Sequence[int] | None) -> None:
    """The child: builds, and says how it went."""
    signal.signal(signal.SIGTERM, _interrupt)
    end_with_the_parent()
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    try:
        _build_once(missing)
        line.send((None, ""))
    except KeyboardInterrupt:
        return
    except Exception as error:  # noqa: BLE001 - the parent decides what becomes of it
        with contextlib.suppress(OSError):  # a parent that has gone asks no more
            line.send((portable_error(error), traceback.format_exc()))


def _interrupt(number: int, frame: object) -> None:
    """Unwind, so that what is half written is removed; a second signal must not cut that short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _build_once(missing: MissingEngine) -> None:
    """Build under the lock, unless another process has built it meanwhile."""
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
        say(f"mvde: building {engine_id} from {missing.graph}, which was not built yet", file=sys.stderr)
        warn(build_one(BuildRequest(source, engine_id, missing.engine_dir, BuildOptions())))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of engines; whoever waits for another process says so."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"mvde: waiting for another process that builds in {folder}/", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
