"""Child processes: passing errors to the parent, describing exit codes, and exiting with the parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildTraceback(Exception):  # noqa: N818 - only used as the cause of another error
    """Formatted traceback from a child process; ``doing`` is the child's task."""

    def __init__(self, doing: str, trace: str) -> None:
        super().__init__(doing, trace)
        self._doing = doing
        self._trace = trace

    def __str__(self) -> str:
        return f"in the process that {self._doing}:\n{self._trace}"


def portable_error(error: Exception) -> Exception:
    """Return the error if it survives pickling, else a RuntimeError with its type and text."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may define any constructor
        copy = None
    return error if type(copy) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def how_it_ended(doing: str, exit_code: int | None, when_out_of_memory: str) -> str:
    """Error message for a child that ended without a result; ``when_out_of_memory`` is the advice if it was killed."""
    if exit_code == -signal.SIGKILL:
        return f"the process that {doing} was killed, as the system does when memory runs out; {when_out_of_memory}"
    return f"the process that {doing} ended without a result (exit code {exit_code}); see its output"


def end_with_the_parent() -> None:
    """Have the kernel kill this process when its parent ends for any reason; exit now if it already has.

    The pipe's EOF is not enough: a busy child does not read it for minutes. The kernel takes the thread that started
    this process for the parent, so that thread has to outlive the work.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
