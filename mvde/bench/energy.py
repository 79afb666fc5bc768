"""Energy counters of the CPU (RAPL, through Linux's powercap) and the first NVIDIA GPU (NVML)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mvde.bench import nvml


@dataclass(frozen=True)
class Counter:
    """Cumulative energy counter in microjoules; wraps to 0 after ``wraps_uj``, if set."""

    name: str
    read_uj: Callable[[], int | None]
    wraps_uj: int | None = None

    def used_uj(self, before_uj: int, after_uj: int) -> int:
        """Microjoules between two readings, allowing for one wrap."""
        used = after_uj - before_uj
        return used if used >= 0 or self.wraps_uj is None else used + self.wraps_uj


@dataclass
class Energy:
    """Result of :func:`measure`: joules by counter; empty if none is readable."""

    joules: dict[str, float]


def counters(root: Path = Path("/")) -> list[Counter]:
    """List the readable counters: CPU packages and their memory first, then the GPU's.

    Linux restricts RAPL to root by default; unreadable counters are skipped.
    """
    found = [
        counter
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if (counter := _rapl(zone)) is not None
    ]
    if nvml.energy_uj() is not None:
        found.append(Counter("gpu", nvml.energy_uj))
    return found


@contextlib.contextmanager
def measure(found: list[Counter]) -> Iterator[Energy]:
    """Yield an energy record filled in on exit: the machine's whole consumption, including idle power."""
    energy = Energy({})
    before = {counter.name: counter.read_uj() for counter in found}
    yield energy
    for counter in found:
        started_uj, ended_uj = before[counter.name], counter.read_uj()
        if started_uj is not None and ended_uj is not None:
            energy.joules[counter.name] = counter.used_uj(started_uj, ended_uj) / 1e6


def _rapl(zone: Path) -> Counter | None:
    """Counter of a package or its memory; cores are skipped, as their package includes them."""
    try:
        name = (zone / "name").read_text(encoding="ascii").strip()
        wraps_uj = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
        int((zone / "energy_uj").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if not name.startswith(("package", "dram")):
        return None

    def read_uj() -> int | None:
        try:
            return int((zone / "energy_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    return Counter(f"{zone.name} {name}", read_uj, wraps_uj)
