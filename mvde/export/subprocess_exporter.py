"""PyTorch's part of an export in a child process, whose exit releases all of its memory.

In one process, memory retained by PyTorch and the exporter (0.5 GB) adds to ONNX Runtime's during the parity check,
which was the peak of the export.
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

    from mvde.export.exportable import ExportableModel

_SECONDS_TO_END = 5.0
_DOING = "traces the model"


class SubprocessExporter:
    """:class:`~mvde.export.exporter.Exporter` that works in child processes, one per graph.

    The child's exceptions are re-raised here, with the child's traceback as their cause.
    """

    def __init__(self, load: Callable[[], ExportableModel], checkpoint: Path | None = None) -> None:
        """Store ``load``, a picklable function that returns the model; ``checkpoint`` is as for ``LocalExporter``."""
        self._arguments = (load, checkpoint)
        self._child: _Child | None = None

    def facts(self) -> ModelFacts:
        """Return the model's facts; the child keeps the model loaded for the next graph."""
        self._child = self._child or _Child(*self._arguments)
        facts: ModelFacts = self._child.ask(None, no_progress)
        return facts

    def write(self, request: GraphRequest, progress: Progress) -> WrittenGraph:
        """Write the requested graph and end the child."""
        self._child = self._child or _Child(*self._arguments)
        written: WrittenGraph = self._child.ask(request, progress)
        self.close()
        return written

    def close(self) -> None:
        """Stop the child, whatever its state."""
        if self._child is not None:
            self._child.end()
        self._child = None


class _Child:
    """Child process and its pipe."""

    def __init__(self, load: Callable[[], ExportableModel], checkpoint: Path | None) -> None:
        context = multiprocessing.get_context("spawn")  # fork in a process with threads can deadlock
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, checkpoint), name="mvde-export", daemon=True)
        self._process.start()
        theirs.close()  # so that the child's exit closes the pipe
        self._is_at_work = False

    def ask(self, request: GraphRequest | None, progress: Progress) -> Any:
        """Return the child's answer: facts for ``None``, else a graph. Raises the child's exception."""
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
        """Close the pipe; an idle child exits on EOF. A busy one is terminated, and killed as a last resort.

        Killing comes last because it makes multiprocessing's resource tracker warn.
        """
        self._line.close()
        if self._is_at_work:
            self._process.terminate()
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(line: Connection, load: Callable[[], ExportableModel], checkpoint: Path | None) -> None:
    """Serve requests in the child until EOF, or until an error was sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
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
    except Exception as error:  # noqa: BLE001 - re-raised in the parent
        with contextlib.suppress(OSError):  # the parent may be gone
            line.send(("error", portable_error(error), traceback.format_exc()))


def _end_at_once(number: int, frame: object) -> None:
    """Exit immediately. Raising an exception would not do: it is swallowed inside a destructor."""
    atexit._run_exitfuncs()  # releases the libraries' semaphores, of which multiprocessing warns otherwise
    os._exit(1)
