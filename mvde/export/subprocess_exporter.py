"""PyTorch's part of an export in a process of its own, which takes all of its memory with it when it ends.

In one process, what PyTorch and the exporter leave behind (0.5 GB) adds to what ONNX Runtime needs for the parity check
that follows; that sum was the export's peak.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.child_process import ChildTraceback, end_with_the_parent, how_it_ended, portable_error
from mvde.errors import BackendError
from mvde.export.exporter import GraphRequest, LocalExporter, ModelFacts, WrittenGraph
from mvde.export.progress import Progress, no_progress

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from mvde.model import DepthModel

_SECONDS_TO_END = 5.0
_DOING = "traces the model"


class SubprocessExporter:
    """A :class:`~mvde.export.exporter.Exporter` whose work is done in child processes, one per graph.

    Errors of the child are raised here as they are, with its traceback as their cause.
    """

    def __init__(self, load: Callable[[], DepthModel], checkpoint: Path | None = None) -> None:
        """``load`` makes the model; it must be picklable. ``checkpoint`` is as for ``LocalExporter``."""
        self._arguments = (load, checkpoint)
        self._child: _Child | None = None

    def facts(self) -> ModelFacts:
        """What is to be known of the model; the child keeps it for the graph that will be asked for next."""
        self._child = self._child or _Child(*self._arguments)
        facts: ModelFacts = self._child.ask(None, no_progress)
        return facts

    def write(self, request: GraphRequest, progress: Progress) -> WrittenGraph:
        """The graph that was asked for; the child has ended when it comes back."""
        self._child = self._child or _Child(*self._arguments)
        written: WrittenGraph = self._child.ask(request, progress)
        self.close()
        return written

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            self._child.end()
        self._child = None


class _Child:
    """One process, and the line to it."""

    def __init__(self, load: Callable[[], DepthModel], checkpoint: Path | None) -> None:
        context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads may hang
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, checkpoint), name="mvde-export", daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the child is the end of the line
        self._is_at_work = False

    def ask(self, request: GraphRequest | None, progress: Progress) -> Any:
        """The child's answer: facts for ``None``, else a graph. Raises what the child raised."""
        self._is_at_work = True
        try:
            self._line.send(request)
            while True:
                kind, value, trace = self._line.recv()
                if kind == "progress":
                    progress(value)
                    continue
                self._is_at_work = False
                if kind == "error":
                    raise value from ChildTraceback(_DOING, trace)
                return value
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join(_SECONDS_TO_END)
            raise BackendError(how_it_ended(_DOING, self._process.exitcode, "use a smaller --res")) from error

    def end(self) -> None:
        """Close the line, which a child that waits takes as its end; one that is at work is asked to stop, or killed.

        A killed one leaves multiprocessing's helper something to warn of, so it comes last.
        """
        self._line.close()
        if self._is_at_work:
            self._process.terminate()
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(line: Connection, load: Callable[[], DepthModel], checkpoint: Path | None) -> None:
    """Answer, in the child, until the parent hangs up or an error has been passed on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which cleans up and ends this process
    signal.signal(signal.SIGTERM, _end_at_once)
    end_with_the_parent()
    exporter = LocalExporter(load, checkpoint)
    try:
        while True:
            request = line.recv()
            if request is None:
                line.send(("answer", exporter.facts(), ""))
            else:
                line.send(("answer", exporter.write(request, lambda text: line.send(("progress", text, ""))), ""))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # noqa: BLE001 - the parent decides what becomes of it
        with contextlib.suppress(OSError):  # a parent that has gone asks no more
            line.send(("error", portable_error(error), traceback.format_exc()))


def _end_at_once(number: int, frame: object) -> None:
    """End the child wherever it is. An exception would not do: one that is raised inside a destructor is swallowed."""
    atexit._run_exitfuncs()  # gives semaphores of the libraries back, of which multiprocessing warns otherwise
    os._exit(1)
