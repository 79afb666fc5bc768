"""Systems that engines are built for (JetPacks, Jetsons, compute capabilities), from a data file with sources."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mvde.cuda.gpu import capability
from mvde.errors import UsageError

_FILE = Path(__file__).with_name("targets.json")
_DESKTOP_OS = "Linux x86-64 or SBSA"


@dataclass(frozen=True)
class Newer:
    """A later TensorRT that NVIDIA supports on a system's ``devices``, and ``how`` to get it."""

    tensorrt: str
    devices: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class System:
    """What a JetPack carries. ``devices`` are the Jetsons it is for, ``unverified`` what no page of NVIDIA's said."""

    name: str
    title: str
    os: str
    python: str
    machine: str
    cuda: str
    tensorrt: str
    devices: tuple[str, ...]
    newer: Newer | None
    sources: tuple[str, ...]
    unverified: str


@dataclass(frozen=True)
class Device:
    """A Jetson: its GPU's compute capability, and the sizes of memory in GiB that it is sold with."""

    name: str
    title: str
    compute_capability: str
    memory_gib: tuple[int, ...]
    sources: tuple[str, ...]
    unverified: str


@dataclass(frozen=True)
class Card:
    """GPUs of a compute capability (``name``), the newest TensorRT for them, and whether TensorRT-RTX builds for it."""

    name: str
    title: str
    tensorrt: str
    tensorrt_rtx: bool
    sources: tuple[str, ...]
    unverified: str


@dataclass(frozen=True)
class TargetTable:
    """All rows of the data file; systems are in order of release."""

    systems: tuple[System, ...]
    devices: tuple[Device, ...]
    cards: tuple[Card, ...]

    def device(self, name: str) -> Device:
        """The Jetson of a name used in :attr:`System.devices`."""
        return next(device for device in self.devices if device.name == name)

    def card(self, compute_capability: str) -> Card | None:
        """The row of a compute capability, ``None`` for a Jetson's."""
        return next((card for card in self.cards if card.name == compute_capability), None)


@dataclass(frozen=True)
class Target:
    """A system as named: a JetPack with the Jetsons meant, or GPUs of a compute capability (then no ``system``)."""

    name: str
    title: str
    system: System | None
    devices: tuple[Device, ...]
    card: Card | None

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """Compute capabilities of the target's GPUs, ascending."""
        found = {device.compute_capability for device in self.devices} | ({self.card.name} if self.card else set())
        return tuple(sorted(found, key=capability))

    @property
    def os(self) -> str:
        """Operating system."""
        return self.system.os if self.system else _DESKTOP_OS

    @property
    def tensorrt(self) -> str:
        """TensorRT that the system carries, or the newest for the GPU."""
        return self.system.tensorrt if self.system else str(self.card and self.card.tensorrt)

    @property
    def newer(self) -> Newer | None:
        """A later TensorRT for at least one of the devices meant, if NVIDIA supports one."""
        found = self.system.newer if self.system else None
        return found if found and {device.name for device in self.devices} & set(found.devices) else None

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of every row that the target is made of, each once."""
        return tuple(dict.fromkeys(source for row in self._rows for source in row.sources))

    @property
    def unverified(self) -> tuple[str, ...]:
        """What could not be verified, of every row."""
        return tuple(f"{row.title}: {row.unverified}" for row in self._rows if row.unverified)

    @property
    def _rows(self) -> list[System | Device | Card]:
        return [row for row in (self.system, *self.devices, self.card) if row is not None]


@lru_cache(maxsize=1)
def target_table() -> TargetTable:
    """The data file's rows."""
    plain = json.loads(_FILE.read_text(encoding="utf-8"))
    systems = []
    for row in plain["systems"]:
        newer = row.pop("newer")
        systems.append(System(newer=Newer(**_frozen(newer)) if newer else None, **_frozen(row)))
    devices = tuple(Device(**_frozen(row)) for row in plain["devices"])
    return TargetTable(tuple(systems), devices, tuple(Card(**_frozen(row)) for row in plain["gpus"]))


def find_targets(text: str) -> list[Target]:
    """The targets that a name stands for, newest system first; the first is the one to judge.

    A JetPack (``jetpack-7.2``; ``jetpack-6`` and ``jetpack-6.x`` mean every 6), a Jetson (``orin-nx``, ``orin`` for all
    of them) or a compute capability (``sm_90``, ``8.7``). Raises :class:`UsageError` with the nearest names.
    """
    table, wanted = target_table(), _plain(text)
    if release := re.fullmatch(r"jetpack-(\d+)(?:\.(x|\d+))?(?:\.(\d+))?", wanted):
        systems = _of_release(table, *release.groups())
        if systems:
            return [_target(system, system.title, tuple(map(table.device, system.devices))) for system in systems]
    if number := re.fullmatch(r"(?:sm-)?(\d{1,2})\.?(\d)", wanted):
        found = _of_capability(table, f"{number[1]}.{number[2]}")
    else:
        found = _on_devices(table, [device for device in table.devices if wanted in _names_of(device.name)])
    if not found:
        raise UsageError(_unknown(text, wanted))
    return found


def _plain(text: str) -> str:
    """A name in the data file's spelling: ``JetPack 7.2``, ``jetson_orin_nx`` become ``jetpack-7.2``, ``orin-nx``."""
    joined = re.sub(r"[\s_]+", "-", text.strip().lower())
    return re.sub(r"^sm(?=\d)", "sm-", re.sub(r"^jetpack(?=\d)", "jetpack-", joined.removeprefix("jetson-")))


def _of_release(table: TargetTable, major: str, minor: str | None, patch: str | None) -> list[System]:
    """Systems of a release, newest first; a patch release without a row of its own is that of its minor release."""
    exact = f"jetpack-{major}.{minor}.{patch}"
    if patch is not None and any(system.name == exact for system in table.systems):
        return [system for system in table.systems if system.name == exact]
    if minor in (None, "x"):
        return [system for system in reversed(table.systems) if system.name.startswith(f"jetpack-{major}.")]
    return [system for system in table.systems if system.name == f"jetpack-{major}.{minor}"]


def _of_capability(table: TargetTable, text: str) -> list[Target]:
    card = table.card(text)
    if card is not None:
        return [Target(text, f"compute capability {text}: {card.title}", None, (), card)]
    return _on_devices(table, [device for device in table.devices if device.compute_capability == text])


def _on_devices(table: TargetTable, devices: list[Device]) -> list[Target]:
    """Every JetPack of some Jetsons, newest first."""
    found = []
    for system in reversed(table.systems):
        meant = tuple(device for device in devices if device.name in system.devices)
        if meant:
            title = f"{', '.join(device.title for device in meant)} with {system.title}"
            found.append(_target(system, title, meant))
    return found


def _target(system: System, title: str, devices: tuple[Device, ...]) -> Target:
    return Target(system.name, title, system, devices, None)


def _names_of(device: str) -> set[str]:
    """Spellings of a Jetson: ``orin-agx`` for ``agx-orin``, and its family alone."""
    first, _, second = device.partition("-")
    family = second if first == "agx" else first
    return {device, family} | ({f"{second}-{first}"} if second else set())


def target_names() -> list[str]:
    """Names of all rows: JetPacks, Jetsons, and compute capabilities as ``sm_90``."""
    table = target_table()
    cards = [f"sm_{card.name.replace('.', '')}" for card in table.cards]
    return [*(system.name for system in table.systems), *(device.name for device in table.devices), *cards]


def _unknown(text: str, wanted: str) -> str:
    names = target_names()
    spelled = {_plain(name): name for name in names}
    near = [spelled[name] for name in difflib.get_close_matches(wanted, list(spelled), n=3, cutoff=0.5)]
    hint = f"the nearest names are {', '.join(near)}" if near else f"known are {', '.join(names)}"
    return f"target {text!r} is not known; expected a JetPack, a Jetson or a compute capability; {hint}"


def _frozen(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
