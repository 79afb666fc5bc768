"""Machine under measurement: properties that affect timing, memory use, and CPU pinning."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvde.errors import UsageError


def describe_machine() -> dict[str, Any]:
    """Properties that affect timing, as JSON types: CPU, features, caches, memory, GPUs, governor, load, versions."""
    from mvde import __version__
    from mvde.engines import machine

    return {
        "mvde": __version__,
        "cpu": machine.cpu_name(),
        "num_cpus": machine.num_cpus(),
        "cpus": cpu_list(),
        "cpu_features": list(machine.cpu_features()),
        "caches": _caches(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "hypervisor": "hypervisor" in _text("/proc/cpuinfo").split(),
        "memory_bytes": machine.memory_bytes(),
        "gpus": machine.nvidia_gpus(),
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def cpu_list() -> str:
    """CPUs available to this process, as ranges: ``"0-3,8"``."""
    if not hasattr(os, "sched_getaffinity"):
        return f"0-{(os.cpu_count() or 1) - 1}"
    return as_ranges(sorted(os.sched_getaffinity(0)))


def as_ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers as ranges: ``"0-3,8"``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Parse a CPU list in taskset's syntax, ``"0,1"`` or ``"0-3,8"``, into ascending numbers.

    Raises :class:`UsageError` for invalid syntax or a CPU not available to this process.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or max(len(low), len(high)) > 5:
            raise UsageError(f"--cpus is {text!r}; expected CPU numbers such as 0,1 or 0-3")
        numbers |= set(range(int(low), int(high or low) + 1))
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(f"--cpus needs Linux; this is {platform.system()}")
    missing = sorted(numbers - os.sched_getaffinity(0))
    if missing or not numbers:
        raise UsageError(
            f"--cpus is {text!r}, but this process has no CPU {as_ranges(missing) or text}; it may use {cpu_list()}"
        )
    return tuple(sorted(numbers))


def pin(cpus: Sequence[int]) -> None:
    """Pin all current and future threads of this process to ``cpus``."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # the thread has exited meanwhile
            os.sched_setaffinity(int(task.name), cpus)


def _caches() -> dict[str, str]:
    """Size of each cache of the first CPU, as reported by the system; empty if unknown."""
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_text(str(cache / name)) for name in ("level", "type", "size"))
        if size and kind != "Instruction":
            found[f"L{level}"] = size
    return found


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
