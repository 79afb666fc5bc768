"""Reading statistics back: by key, by shard, or as a data set of a training loop."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.bulk.fingerprint import read_record
from mvde.bulk.formats import OutputFormat
from mvde.bulk.shards import PictureRecord, ShardFile, open_shard
from mvde.errors import DatasetError, ImageError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_OPEN = 64
"""Shards that are open at a time, with their keys in memory."""


class StatsFolder:
    """Output of ``mvde stats``: statistics of each picture by its key, and as a map-style data set by row.

    ``folder[index]`` and ``len(folder)`` are what ``torch.utils.data.DataLoader`` asks for: a dictionary of ``key`` and
    ``depth_stats`` (N, S), float32, patches in row-major order as a vision tower's tokens are, or in the order of the
    processor's ``pixel_values`` where they were computed for one. Rows with errors are left out. Pictures are upright
    as their EXIF orientation says; a trainer has to turn them the same way.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder. Raises :class:`ArtifactError` if it holds no statistics."""
        self._folder = Path(folder)
        self._record = read_record(self._folder)
        self._form = OutputFormat(self._record["output_format"])
        self._opened: dict[str, ShardFile] = {}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the statistics were computed with."""
        return self._record

    @property
    def stat_names(self) -> tuple[str, ...]:
        """Columns of the statistics."""
        return tuple(self._record["stats"])

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patch grid; ``None`` for an image processor's patches, whose number varies."""
        found = self._record["grid"]
        return None if found is None else (int(found[0]), int(found[1]))

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder

    @property
    def shard_names(self) -> list[str]:
        """Names of the finished shards, sorted."""
        suffix = self._form.suffix
        return sorted(path.name.removesuffix(suffix) for path in self._folder.glob(f"[!.]*{suffix}"))

    def shard(self, name: str) -> ShardFile:
        """A finished shard, for reading in the order of its rows.

        Raises :class:`DatasetError` if there is none, :class:`ArtifactError` if it cannot be read.
        """
        if name not in self._opened:
            path = self._folder / f"{name}{self._form.suffix}"
            if not path.is_file():
                raise DatasetError(f"{self._folder} has no shard {name!r}; it has {len(self.shard_names)} others")
            while len(self._opened) >= _MAX_OPEN:
                self._opened.pop(next(iter(self._opened)))
            self._opened[name] = open_shard(path, self._form)
        return self._opened[name]

    def all_keys(self) -> Iterator[str]:
        """Yield the keys of all rows, errors included, shard after shard."""
        for name in self.shard_names:
            yield from self.shard(name).keys

    def stats(self, key: str) -> NDArray[np.float32]:
        """Statistics (N, S), float32, of a picture by its key.

        Raises :class:`DatasetError` for an unknown key, :class:`ImageError` with the recorded error for a picture that
        could not be read.
        """
        return self.picture(key)[0]

    def picture(self, key: str) -> tuple[NDArray[np.float32], PictureRecord]:
        """Statistics (N, S) of a picture as :meth:`stats` gives them, and what its row says of it."""
        shard, row = self._row_of(key)
        found = shard.stats(row)
        if found is None:
            raise ImageError(f"{key} has no statistics: {shard.error(row)}")
        return found, shard.record(row)

    def __contains__(self, key: str) -> bool:
        return next(self._rows_of(key), None) is not None

    def _row_of(self, key: str) -> tuple[ShardFile, int]:
        """Shard of a key, and the row there. Raises :class:`DatasetError` for an unknown key."""
        found = list(self._rows_of(key))
        if len(found) > 1:
            names = " and ".join(name for name, _ in found)
            raise DatasetError(f"{self._folder} has statistics of {key!r} in {names}; read them by shard")
        if found:
            name, row = found[0]
            return self.shard(name), row
        example = next(self.all_keys(), None)
        raise DatasetError(
            f"{self._folder} has no statistics of {key!r}; keys are paths as mvde stats was given them"
            + ("" if example is None else f", for instance {example!r}")
        )

    def _rows_of(self, key: str) -> Iterator[tuple[str, int]]:
        """Yield shard and row of each picture of a key; tars may have the same keys."""
        index = self._index
        code = np.int64(hash(key))
        for place in range(int(np.searchsorted(index.codes, code)), len(index.codes)):
            if index.codes[place] != code:
                break
            name, row = index.names[index.shards[place]], int(index.rows[place])
            if self.shard(name).keys[row] == key:  # and not another key of the same hash
                yield name, row

    def __len__(self) -> int:
        return len(self._valid)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number, row = self._valid[index]
        shard = self.shard(self._index.names[number])
        return {"key": shard.keys[int(row)], "depth_stats": shard.stats(int(row))}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._folder,)  # opened again in another process: hashes of text differ there

    @cached_property
    def _valid(self) -> NDArray[np.int32]:
        """Shard number and row, (rows, 2), of each row without an error."""
        parts = [np.zeros((0, 2), np.int32)]
        for number, name in enumerate(self._index.names):
            rows = np.flatnonzero(self.shard(name).is_valid)
            parts.append(np.column_stack([np.full(len(rows), number), rows]).astype(np.int32))
        return np.concatenate(parts)

    @cached_property
    def _index(self) -> _Index:
        return _Index(self.shard_names, self)


class _Index:
    """Rows by the hash of their key, 16 bytes a row: ten million keys as text would take a gigabyte."""

    def __init__(self, names: list[str], folder: StatsFolder) -> None:
        self.names = names
        parts = [np.fromiter(map(hash, folder.shard(name).keys), np.int64) for name in names]
        codes = np.concatenate([*parts, np.zeros(0, np.int64)])
        order = np.argsort(codes, kind="stable")
        self.codes = codes[order]
        sizes = [len(part) for part in parts]
        self.shards = np.repeat(np.arange(len(names), dtype=np.int32), sizes)[order]
        starts = np.repeat(np.cumsum([0, *sizes])[:-1], sizes)
        self.rows = (np.arange(len(codes)) - starts).astype(np.int32)[order]


def open_stats(
    folder: str | Path,
    *,
    grid: tuple[int, int] | None = None,
    fit: str | None = None,
    stats: tuple[str, ...] | None = None,
) -> StatsFolder:
    """Open the output of ``mvde stats``, checked against what a trainer will use.

    ``grid`` is the tower's patch grid (rows, columns), ``fit`` how it resizes pictures of another aspect ratio, and
    ``stats`` the columns it expects. Raises :class:`UsageError` where they differ, :class:`ArtifactError` if the folder
    holds no statistics.
    """
    opened = StatsFolder(folder)
    wanted = {"grid": grid, "fit": fit, "stats": stats}
    there = {"grid": opened.grid, "fit": opened.fingerprint["fit"], "stats": opened.stat_names}
    wrong = [
        f"{name}: there {there[name]}, wanted {want}"
        for name, want in wanted.items()
        if want not in (None, there[name])
    ]
    if wrong:
        raise UsageError(f"the statistics in {folder} do not fit ({'; '.join(wrong)}); compute them so, or train so")
    return opened
