"""What verbs that work in a child process share: errors that come back from it, and how it ended."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class ChildTraceback(Exception):  # noqa: N818 - never raised by itself; it is shown as another error's cause
    """What the traceback of an error in a child process looked like there; ``doing`` is what the child was for."""

    def __init__(self, doing: str, trace: str) -> None:
        super().__init__(doing, trace)
        self._doing = doing
        self._trace = trace

    def __str__(self) -> str:
        return f"in the process that {self._doing}:\n{self._trace}"


def portable_error(error: Exception) -> Exception:
    """The error, or, where it would not survive the way to another process, its name and text."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception may define any constructor
        copy = None
    return error if type(copy) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def how_it_ended(doing: str, exit_code: int | None, when_out_of_memory: str) -> str:
    """A sentence on a child that ended without an answer; ``when_out_of_memory`` is what to do if it was killed."""
    if exit_code == -signal.SIGKILL:
        return f"the process that {doing} was killed, as the system does when memory runs out; {when_out_of_memory}"
    return f"the process that {doing} ended without an answer (exit code {exit_code}); see what it printed"


def end_with_the_parent() -> None:
    """Let the kernel kill this process as soon as its parent has ended, however that was, and do so now if it has.

    The parent's end is the end of the pipe as well, but a child at work does not look at that for minutes. To the
    kernel the parent is the thread that started this process: it has to stay until the work is done.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux's; absent elsewhere
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
