"""Other work on the machine that comes and goes, made by processes that compute while they are told to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType

from mvde.engines.machine import num_cpus

_WORK = """
import select, sys
is_on = False
while True:
    ready, _, _ = select.select([sys.stdin], [], [], 0 if is_on else None)
    if ready:
        line = sys.stdin.readline()
        if not line:
            break
        is_on = line == "on\\n"
    elif is_on:
        sum(range(20000))
"""
"""Ends with its input, which ends with the parent. A pass takes about 0.3 ms, after which it may stop."""


class Load:
    """One process per CPU that this process may use, idle until :meth:`switch`; used in a ``with`` statement."""

    def __init__(self, num_processes: int | None = None) -> None:
        self.num_processes = num_processes or num_cpus()
        self._processes: Sequence[subprocess.Popen[str]] = ()
        self._is_on = False

    def __enter__(self) -> Load:
        command = [sys.executable, "-I", "-S", "-c", _WORK]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1) for _ in range(self.num_processes)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()

    def switch(self, is_on: bool) -> None:
        """Let the processes compute, or wait."""
        if is_on == self._is_on:
            return
        self._is_on = is_on
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("on\n" if is_on else "off\n")
