"""Pictures of a shard, as bytes with their keys; a picture that cannot be read is an item with its error."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from mvde.bulk.inputs import Shard, ShardKind, location_of
from mvde.bulk.locations import ABSENT, is_url, open_file, read_file
from mvde.errors import DatasetError, MissingDependencyError, MvdeError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm")
_KEY_COLUMNS = ("__key__", "key", "id", "image_id")
_CAMERA_COLUMNS = ("fx", "fy", "cx", "cy")
_BATCH_ROWS = 64
MAX_BYTES = 256 << 20
"""Largest file of a picture; larger ones are errors, so that a tar's damaged header does not fill the memory."""


@dataclass(frozen=True)
class Item:
    """A picture: its key, and where it came from.

    ``source`` is the tar or Parquet file's name, or the root of a list; ``offset`` the byte within a tar, or the row of
    a Parquet file. ``camera`` are fx, fy, cx, cy in pixels. ``content`` is ``None`` where there is an ``error``.
    """

    key: str
    source: str
    offset: int
    content: bytes | None
    error: str | None = None
    camera: tuple[float, float, float, float] | None = None

    @property
    def size(self) -> int:
        """Size in bytes, or ``ABSENT``."""
        return ABSENT if self.content is None else len(self.content)


def read_items(shard: Shard) -> Iterator[Item]:
    """Yield the pictures of a shard in order, at most its limit.

    Raises :class:`DatasetError` for a tar or Parquet file that is not there or is none, or that lacks the column. A tar
    that is cut off ends with an item that says so, under the key of the member that is missing.
    """
    readers = {ShardKind.FILES: _files, ShardKind.TAR: _tar, ShardKind.PARQUET: _parquet}
    try:
        yield from islice(_without_duplicates(readers[shard.kind](shard)), shard.limit)
    except (OSError, EOFError, MvdeError):
        raise
    except Exception as error:
        if not is_url(shard.location):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DatasetError(f"cannot read {shard.location}: {reason}; the same command tries again") from error


def count_items(shard: Shard) -> int:
    """Number of pictures of a tar or Parquet file, at most the shard's limit."""
    if shard.kind is ShardKind.PARQUET:
        with _opened(shard) as stream:
            rows: int = _parquet_file(stream, shard).metadata.num_rows
        return rows if shard.limit is None else min(rows, shard.limit)
    return sum(1 for _ in read_items(shard))


def _without_duplicates(items: Iterator[Item]) -> Iterator[Item]:
    """The items, where a key that was there before is an error: its row could not be found by key."""
    seen: dict[str, int] = {}
    for item in items:
        first = seen.setdefault(item.key, item.offset)
        if first != item.offset:
            text = f"the key {item.key!r} is there twice in {item.source}; the first is at {first}"
            item = Item(f"{item.key}#{item.offset}", item.source, item.offset, None, item.error or text)
        yield item


def _files(shard: Shard) -> Iterator[Item]:
    for index, (key, error) in enumerate(shard.files):
        content = None
        if error is None:
            try:
                content = read_file(location_of(shard, key), MAX_BYTES + 1)
                if len(content) > MAX_BYTES:
                    content, error = None, f"{key} has more than {MAX_BYTES} bytes"
            except OSError as reason:
                error = f"cannot read {key}: {reason.strerror or reason}"
            except DatasetError as reason:
                error = str(reason)
        yield Item(key, shard.location, index, content, error)


def _opened(shard: Shard) -> IO[bytes]:
    try:
        return open_file(shard.location)
    except OSError as error:
        raise DatasetError(f"cannot read {shard.location}: {error.strerror or error}") from error


def _tar(shard: Shard) -> Iterator[Item]:
    source, key, offset = PurePosixPath(shard.location).name, "", 0
    try:
        with _opened(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                found, offset = _key_of(member.name), member.offset_data
                if found is None or not member.isreg():
                    continue
                key = found
                if member.size > MAX_BYTES:
                    yield Item(key, source, offset, None, f"{member.name} has more than {MAX_BYTES} bytes")
                    continue
                opened = tar.extractfile(member)
                assert opened is not None, "a regular member"
                content = opened.read()
                if len(content) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield Item(key, source, offset, content)
    except (tarfile.TarError, EOFError, OSError) as error:
        if offset == 0 and not key:
            raise DatasetError(f"{shard.location} is no tar that can be read: {error}") from error
        text = f"{source} is cut off or damaged after {key!r}: {error}"
        yield Item(f"{source}#cut", source, offset, None, text)


def _key_of(name: str) -> str | None:
    """WebDataset's key of a picture, the path up to the first dot of its last part; ``None`` for another file."""
    folder, _, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    if suffix.lower() not in _SUFFIXES:
        return None
    return f"{folder}/{stem}" if folder else stem


def _parquet(shard: Shard) -> Iterator[Item]:
    source, row = PurePosixPath(shard.location).name, 0
    with _opened(shard) as stream:
        file = _parquet_file(stream, shard)
        column = shard.column or _picture_column(file, shard.location)
        names = set(file.schema_arrow.names)
        if column not in names:
            raise DatasetError(f"{shard.location} has no column {column!r}; it has {', '.join(sorted(names))}")
        key_column = next((name for name in _KEY_COLUMNS if name in names), None)
        cameras = _CAMERA_COLUMNS if names.issuperset(_CAMERA_COLUMNS) else ()
        for batch in file.iter_batches(_BATCH_ROWS, columns=[column, *filter(None, [key_column]), *cameras]):
            for values in batch.to_pylist():
                key = f"{PurePosixPath(shard.location).stem}-{row:09d}"
                if key_column is not None and values[key_column] is not None:
                    key = str(values[key_column])
                content = _bytes_of(values[column])
                error = None if content else f"row {row} of {source} has no picture"
                yield Item(key, source, row, content or None, error, _camera_of(values) if cameras else None)
                row += 1


def _parquet_file(stream: IO[bytes], shard: Shard) -> ParquetFile:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "bulk", f"reading {shard.location}") from error
    try:
        return ParquetFile(stream)
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{shard.location} is no Parquet file that can be read: {error}") from error


def _picture_column(file: ParquetFile, location: str) -> str:
    """The only column of bytes, or of a structure with ``bytes`` as data sets of pictures have it."""
    import pyarrow

    def holds_pictures(kind: Any) -> bool:
        if pyarrow.types.is_struct(kind):
            return int(kind.get_field_index("bytes")) >= 0
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    found = [field.name for field in file.schema_arrow if holds_pictures(field.type)]
    if len(found) != 1:
        names = ", ".join(found or file.schema_arrow.names)
        what = "several columns of bytes" if found else "no column of bytes"
        raise DatasetError(f"{location} has {what} ({names}); name the one with the pictures: --column NAME")
    return str(found[0])


def _bytes_of(value: Any) -> bytes | None:
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else None


def _camera_of(values: dict[str, Any]) -> tuple[float, float, float, float] | None:
    numbers = [values[name] for name in _CAMERA_COLUMNS]
    return None if None in numbers else (numbers[0], numbers[1], numbers[2], numbers[3])
