"""PyTorch's part of an export in a process of its own, which takes all of its memory with it when it ends.

In one process, what PyTorch and the exporter leave behind (0.5 GB) adds to what ONNX Runtime needs for the parity check
that follows; that sum was the export's peak.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.errors import BackendError
from mvde.export.exporter import GraphRequest, LocalExporter, ModelFacts, WrittenGraph
from mvde.export.progress import Progress, no_progress

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from mvde.model import DepthModel

_SECONDS_TO_END = 5.0
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


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
                    raise value from _ChildTraceback(trace)
                return value
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join(_SECONDS_TO_END)
            raise BackendError(_how_it_ended(self._process.exitcode)) from error

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


class _ChildTraceback(Exception):  # noqa: N818 - never raised by itself; it is shown as another error's cause
    """What the traceback of an error in the child looked like there."""

    def __str__(self) -> str:
        return f"in the process that traces the model:\n{self.args[0]}"


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return (
            "the process that traces the model was killed, as the system does when memory runs out; use a smaller --res"
        )
    return f"the process that traces the model ended without an answer (exit code {exit_code}); see what it printed"


def _serve(line: Connection, load: Callable[[], DepthModel], checkpoint: Path | None) -> None:
    """Answer, in the child, until the parent hangs up or an error has been passed on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which cleans up and ends this process
    signal.signal(signal.SIGTERM, _end_at_once)
    _end_with_the_parent()
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
            line.send(("error", _portable(error), traceback.format_exc()))


def _end_with_the_parent() -> None:
    """Let the kernel kill this process as soon as its parent has ended, however that was, and do so now if it has.

    The parent's end is the end of the line as well, but a child that traces does not look at it for minutes.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux's; absent elsewhere
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def _end_at_once(number: int, frame: object) -> None:
    """End the child wherever it is. An exception would not do: one that is raised inside a destructor is swallowed."""
    atexit._run_exitfuncs()  # gives semaphores of the libraries back, of which multiprocessing warns otherwise
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or, where it would not survive the way to the parent, its name and text."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may define any constructor
        copy = None
    if type(copy) is type(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
