"""Files of finished shards, read by row: Parquet, Arrow IPC and WebDataset tars."""

from __future__ import annotations

import io
import json
import tarfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mvde.bulk.columns import StoredColumn
from mvde.bulk.formats import OutputFormat
from mvde.bulk.writing import ERROR_SUFFIX, METADATA_KEY, RECORD_SUFFIX, STATS_SUFFIX
from mvde.errors import ArtifactError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PictureRecord:
    """What a row says of its picture: upright height and width and fx in pixels, and the hash of its geometry."""

    height: int
    width: int
    focal: float | None
    geometry: bytes | None


class ShardFile(Protocol):
    """A finished shard. ``keys`` are those of its rows; reading a file that is damaged raises ArtifactError."""

    @property
    def keys(self) -> list[str]:
        """Keys of the rows, in order."""
        ...

    @property
    def is_valid(self) -> NDArray[np.bool_]:
        """Which rows have statistics, and no error."""
        ...

    def stats(self, row: int) -> NDArray[np.float32] | None:
        """Statistics (N, S) of a row, float32; ``None`` for a row with an error."""
        ...

    def error(self, row: int) -> str | None:
        """Error of a row."""
        ...

    def record(self, row: int) -> PictureRecord:
        """Record of a row without an error."""
        ...


def open_shard(path: Path, form: OutputFormat) -> ShardFile:
    """Open a shard's file. Raises :class:`ArtifactError` if it cannot be read."""
    try:
        if form is OutputFormat.WEBDATASET:
            return _TarShard(path)
        return _ArrowShard(path) if form is OutputFormat.ARROW else _ParquetShard(path)
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "bulk", f"reading {path}") from error
    except (OSError, ValueError, tarfile.TarError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise ArtifactError(f"{path} cannot be read: {error}; compute it again") from error


class _TableShard(ABC):
    """Rows in record batches of one size, as Parquet's row groups and Arrow's batches are."""

    def __init__(self, metadata: dict[bytes, bytes] | None, sizes: list[int], path: Path) -> None:
        described = json.loads((metadata or {}).get(METADATA_KEY, b"{}"))
        if "columns" not in described:
            raise ArtifactError(f"{path} is no file of mvde stats: it does not say how its statistics are stored")
        self._columns = [StoredColumn(**one) for one in described["columns"]]
        self._starts = np.cumsum([0, *sizes])
        self._loaded: tuple[int, Any] | None = None

    @cached_property
    def keys(self) -> list[str]:
        """Keys of the rows, in order."""
        return [key for place in range(len(self._starts) - 1) for key in self._column(place, "key").to_pylist()]

    @property
    def is_valid(self) -> NDArray[np.bool_]:
        """Which rows have statistics, and no error."""
        parts = [
            self._column(place, "error").is_null().to_numpy(zero_copy_only=False)
            for place in range(len(self._starts) - 1)
        ]
        return np.concatenate([np.zeros(0, bool), *parts])

    def stats(self, row: int) -> NDArray[np.float32] | None:
        """Statistics (N, S) of a row, float32; ``None`` for a row with an error."""
        batch, place = self._find(row)
        parts = [batch.column(one.name)[place] for one in self._columns]
        if not parts[0].is_valid:
            return None
        values = [one.read(part.values.to_numpy()) for one, part in zip(self._columns, parts, strict=True)]
        return np.stack(values, axis=-1)

    def error(self, row: int) -> str | None:
        """Error of a row."""
        batch, place = self._find(row)
        text: str | None = batch.column("error")[place].as_py()
        return text

    def record(self, row: int) -> PictureRecord:
        """Record of a row without an error."""
        batch, place = self._find(row)
        names = set(batch.schema.names)
        values: dict[str, Any] = {
            name: batch.column(name)[place].as_py() if name in names else None
            for name in ("height", "width", "focal", "geometry")
        }
        return PictureRecord(**values)

    def _find(self, row: int) -> tuple[Any, int]:
        """The batch with a row, and the row's place there; the last batch stays in memory."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = number, self._batch(number)
        return self._loaded[1], row - int(self._starts[number])

    @abstractmethod
    def _batch(self, number: int) -> Any:
        """Record batch of a number, with all columns."""

    @abstractmethod
    def _column(self, number: int, name: str) -> Any:
        """A column of a batch, read alone."""


class _ParquetShard(_TableShard):
    def __init__(self, path: Path) -> None:
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(path, memory_map=True)
        meta = self._file.metadata
        sizes = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
        super().__init__(self._file.schema_arrow.metadata, sizes, path)

    def _batch(self, number: int) -> Any:
        return self._file.read_row_group(number).combine_chunks().to_batches()[0]

    def _column(self, number: int, name: str) -> Any:
        return self._file.read_row_group(number, columns=[name])[name].combine_chunks()


class _ArrowShard(_TableShard):
    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [self._reader.get_batch(number) for number in range(self._reader.num_record_batches)]
        super().__init__(self._reader.schema.metadata, [batch.num_rows for batch in self._batches], path)

    def _batch(self, number: int) -> Any:
        return self._batches[number]

    def _column(self, number: int, name: str) -> Any:
        return self._batches[number].column(name)


class _TarShard:
    def __init__(self, path: Path) -> None:
        self._path = path
        with tarfile.open(path, "r:") as tar:
            found = [(member.name, member.offset_data, member.size) for member in tar]
        self._members = [
            (name.removesuffix(f".{suffix}"), suffix, offset, size)
            for name, offset, size in found
            for suffix in (STATS_SUFFIX, ERROR_SUFFIX)
            if name.endswith(f".{suffix}")
        ]
        self._records = {
            name.removesuffix(f".{RECORD_SUFFIX}"): (offset, size)
            for name, offset, size in found
            if name.endswith(f".{RECORD_SUFFIX}")
        }

    @cached_property
    def keys(self) -> list[str]:
        """Keys of the rows, in order."""
        return [key for key, *_ in self._members]

    @property
    def is_valid(self) -> NDArray[np.bool_]:
        """Which rows have statistics, and no error."""
        return np.array([suffix == STATS_SUFFIX for _, suffix, *_ in self._members], bool)

    def stats(self, row: int) -> NDArray[np.float32] | None:
        """Statistics (N, S) of a row, float32; ``None`` for a row with an error."""
        if self._members[row][1] == ERROR_SUFFIX:
            return None
        values: NDArray[np.float32] = np.load(io.BytesIO(self._content(*self._members[row][2:])), allow_pickle=False)
        return values

    def error(self, row: int) -> str | None:
        """Error of a row."""
        _, suffix, offset, size = self._members[row]
        return self._content(offset, size).decode("utf-8") if suffix == ERROR_SUFFIX else None

    def record(self, row: int) -> PictureRecord:
        """Record of a row without an error."""
        plain = json.loads(self._content(*self._records[self._members[row][0]]))
        geometry = plain["geometry"]
        return PictureRecord(
            plain["height"], plain["width"], plain["focal"], None if geometry is None else bytes.fromhex(geometry)
        )

    def _content(self, offset: int, size: int) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)
