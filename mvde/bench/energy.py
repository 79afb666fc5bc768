"""Energy counters: the CPU's (RAPL, through Linux's powercap) and the first NVIDIA GPU's (NVML)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mvde.bench import nvml


@dataclass(frozen=True)
class Counter:
    """Microjoules that something has used so far; they start again from 0 after ``wraps_uj``, where there is one."""

    name: str
    read_uj: Callable[[], int | None]
    wraps_uj: int | None = None

    def used_uj(self, before_uj: int, after_uj: int) -> int:
        """Microjoules between two readings."""
        used = after_uj - before_uj
        return used if used >= 0 or self.wraps_uj is None else used + self.wraps_uj


@dataclass
class Energy:
    """What :func:`measure` found: joules by counter; empty where no counter could be read."""

    joules: dict[str, float]


def counters(root: Path = Path("/")) -> list[Counter]:
    """The counters that this process may read, CPU packages and their memory first, then the GPU's.

    Linux lets only root read RAPL by default; a counter that refuses is left out.
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
    """Energy that is filled in when the block ends: everything the machine used meanwhile, its idle power included."""
    energy = Energy({})
    before = {counter.name: counter.read_uj() for counter in found}
    yield energy
    for counter in found:
        started_uj, ended_uj = before[counter.name], counter.read_uj()
        if started_uj is not None and ended_uj is not None:
            energy.joules[counter.name] = counter.used_uj(started_uj, ended_uj) / 1e6


def _rapl(zone: Path) -> Counter | None:
    """Counter of a package or of its memory; cores are part of their package and would be counted twice."""
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
