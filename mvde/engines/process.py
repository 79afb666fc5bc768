"""Fork guard for inference libraries, whose threads do not exist in a forked child.

In the child, using such a library or freeing its objects deadlocks on the missing threads. Every owner of library
objects therefore has a :class:`ProcessGuard`: in a forked child using it is an error with advice, and it is never
freed.

A child that ends with ``os._exit``, as in multiprocessing, ends at once, and so does a child of ``os.fork`` that ends
with ``sys.exit``. Where a program imported ONNX Runtime before mvde, with its telemetry on, that library waits for its
telemetry thread there, with or without mvde.
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
    """Binds an object to the process that created it."""

    def __init__(self, owner: object, library: str) -> None:
        """Guard ``owner``, which holds objects of ``library`` (its display name)."""
        self._pid = os.getpid()
        self._owner = weakref.ref(owner)
        self._library = library
        _guards.add(self)

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the object's creator, so that it must be neither used nor freed."""
        return os.getpid() != self._pid

    def check(self, what: str) -> None:
        """Raise :class:`BackendError` about ``what`` in a fork of the process that created it."""
        if self.is_inherited:
            raise BackendError(
                f"{what} was loaded before this process was forked, and the threads of {self._library} do not survive "
                f"that; {ADVICE}"
            )

    def keep(self) -> None:
        """Keep the owner alive until the process exits, even past interpreter shutdown."""
        if (owner := self._owner()) is not None:
            _keep_for_ever(owner)


def _keep_for_ever(owner: Any) -> None:
    """Leak a reference: a module-level list would be cleared at interpreter shutdown."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


def _keep_inherited() -> None:
    for guard in list(_guards):
        guard.keep()


os.register_at_fork(after_in_child=_keep_inherited)
