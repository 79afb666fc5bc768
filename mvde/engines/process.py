"""What a process owns alone: the threads of an inference library, which are not there in a fork of the process.

Using such a library in the child waits for its threads for ever, and so does freeing what it made. So whatever holds
the library's objects has a :class:`ProcessGuard`: in a forked child its use is an error that says what to do, and
nothing of it is ever freed there.

A child that ends by ``os._exit``, as those of multiprocessing do, ends at once, and so does one of ``os.fork`` that
ends by ``sys.exit``. Where a program has imported ONNX Runtime before mvde, with its telemetry on, that library waits
for its telemetry thread there, with or without mvde.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

from mvde.errors import BackendError

ADVICE = "start the child with multiprocessing.get_context('spawn'), or load engines in the children only"

_guards: weakref.WeakSet[ProcessGuard] = weakref.WeakSet()


class ProcessGuard:
    """Binds an object to the process that made it."""

    def __init__(self, owner: object, library: str) -> None:
        """``owner`` holds objects of ``library``, which is called as its makers write it."""
        self._pid = os.getpid()
        self._owner = weakref.ref(owner)
        self._library = library
        _guards.add(self)

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one that made the object, so that it cannot be used or freed."""
        return os.getpid() != self._pid

    def check(self, what: str) -> None:
        """Raise :class:`BackendError`, naming ``what`` was to be used, in a fork of the process that made it."""
        if self.is_inherited:
            raise BackendError(
                f"{what} was loaded before this process was forked, and the threads of {self._library} do not survive "
                f"that; {ADVICE}"
            )

    def keep(self) -> None:
        """Keep the owner for as long as this process lives, also beyond the interpreter's end."""
        if (owner := self._owner()) is not None:
            _keep_for_ever(owner)


def _keep_for_ever(owner: Any) -> None:
    """Count a reference that nobody gives back: a list of the module would be cleared when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


def _keep_inherited() -> None:
    for guard in list(_guards):
        guard.keep()


os.register_at_fork(after_in_child=_keep_inherited)
