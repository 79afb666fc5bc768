"""Combinations of library, GPU and graph known to produce wrong depth, from a data file with sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mvde.errors import BackendError
from mvde.precision import Precision

_FILE = Path(__file__).with_name("known_bad.json")
_BATCHES: dict[str, Callable[[int], bool]] = {
    "any": lambda batch: True,
    "one": lambda batch: batch == 1,
    "several": lambda batch: batch > 1,
}


@dataclass(frozen=True)
class Combination:
    """A planned build: library version, GPU compute capabilities (``"8.9"``), the graph's precision and batch."""

    backend: str
    version: str
    compute_capabilities: tuple[str, ...]
    precision: Precision
    batch: int


@dataclass(frozen=True)
class KnownBad:
    """An entry of the list. Versions span [``first``, ``before``); empty tuples mean any.

    ``level`` is ``"refuse"`` if similar models were affected, ``"warn"`` if the parity check must decide.
    """

    id: str
    level: str
    backend: str
    first: str
    before: str
    precisions: tuple[Precision, ...]
    compute_capabilities: tuple[str, ...]
    batches: str
    what: str
    advice: str
    sources: tuple[str, ...]

    def concerns_library(self, backend: str, version: str) -> bool:
        """Whether the entry covers this library and version, regardless of GPU and graph."""
        return self.backend == backend and _numbers(self.first) <= _numbers(version) < _numbers(self.before)

    def matches(self, about: Combination) -> bool:
        """Whether the entry covers this combination."""
        return (
            self.concerns_library(about.backend, about.version)
            and (not self.precisions or about.precision in self.precisions)
            and (
                not self.compute_capabilities or bool(set(about.compute_capabilities) & set(self.compute_capabilities))
            )
            and _BATCHES[self.batches](about.batch)
        )

    def __str__(self) -> str:
        return f"{self.id}: {self.what}; {self.advice} ({', '.join(self.sources)})"


@lru_cache(maxsize=1)
def all_known_bad() -> tuple[KnownBad, ...]:
    """All entries of the list."""
    entries = json.loads(_FILE.read_text(encoding="utf-8"))
    for entry in entries:
        entry["first"] = entry.pop("from")
        entry["precisions"] = [Precision(text) for text in entry["precisions"]]
    return tuple(KnownBad(**{key: _frozen(value) for key, value in entry.items()}) for entry in entries)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_combination(about: Combination, accepted: bool) -> list[str]:
    """Warnings about a combination, including ``refuse`` entries if the user ``accepted`` them.

    Raises :class:`BackendError` listing every ``refuse`` entry otherwise.
    """
    found = [entry for entry in all_known_bad() if entry.matches(about)]
    refusing = [entry for entry in found if entry.level == "refuse"]
    if refusing and not accepted:
        listed = "; ".join(map(str, refusing))
        raise BackendError(
            f"{about.backend} {about.version} is known to give wrong results here: {listed}. To build all the same, "
            "give `mvde build` --accept-known-bad; the engine is still measured against its graph"
        )
    return [str(entry) for entry in found]


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
