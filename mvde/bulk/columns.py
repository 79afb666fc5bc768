"""Rows of a shard as columns: what is stored of each statistic, and reading it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.bulk.formats import StatsDtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALF, _SINGLE = "float16", "float32"
TOLERANCE = 0.01
"""Largest relative error of a stored statistic; a column that float16 cannot hold so closely is stored as float32."""


@dataclass(frozen=True)
class Row:
    """A picture's row. ``stats`` are (N, S), float32, ``None`` where there is an ``error``; ``size`` is in bytes.

    ``height`` and ``width`` are those of the upright picture in pixels, ``focal`` fx in its pixels where known.
    ``tiles``, ``grid`` and ``geometry`` are those of :class:`mvde.bulk.patches.PatchRows`.
    """

    key: str
    source: str
    offset: int
    size: int
    sha256: bytes | None = None
    height: int | None = None
    width: int | None = None
    focal: float | None = None
    stats: NDArray[np.float32] | None = None
    error: str | None = None
    grid: tuple[int, int] | None = None
    tiles: int | None = None
    geometry: bytes | None = None


@dataclass(frozen=True)
class StoredColumn:
    """How a statistic is stored: as itself or as its root (the deviation, for the variance), in which dtype."""

    name: str
    is_root: bool
    dtype: str

    def read(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The statistic, float32, from what was stored."""
        numbers = values.astype(np.float32)
        return numbers * numbers if self.is_root else numbers


def store(name: str, values: NDArray[np.float32], dtype: StatsDtype) -> tuple[StoredColumn, NDArray[Any]]:
    """A statistic of any shape for storage in ``dtype``.

    In float16 the variance is stored as its root, since a variance of 1e-6 m² would be off by more than 1 %. A column
    that float16 cannot hold within 1 % becomes float32.
    """
    if dtype is StatsDtype.F2:
        column = StoredColumn(name, name == "var", _HALF)
        with np.errstate(over="ignore"):
            stored = (np.sqrt(values) if column.is_root else values).astype(np.float16)
            back = column.read(stored)
        if np.all(np.abs(back - values) <= TOLERANCE * np.abs(values)):
            return column, stored
    return StoredColumn(name, False, _SINGLE), values.astype(np.float32)


def stats_of(rows: Sequence[Row], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Each statistic of the patches of all rows, one after the other, (patches,), float32; none of an error."""
    found = [row.stats for row in rows if row.stats is not None]
    values = np.concatenate([np.zeros((0, len(names)), np.float32), *found])
    return {name: np.ascontiguousarray(values[:, place]) for place, name in enumerate(names)}
