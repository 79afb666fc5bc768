"""Inputs as shards of work, listed lazily: folders, lists, LLaVA conversations, WebDataset tars and Parquet files."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain, compress, islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from mvde.bulk.locations import is_folder, joined, matches, open_file, walk
from mvde.errors import DatasetError, UsageError
from mvde.image import is_image_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STANDARD_INPUT = "-"
_CHUNK_CHARACTERS = 1 << 16
_PART = 4096
"""Paths of a list that are read at a time; a shard is made when as many have come."""
_BETWEEN = re.compile(r"[ \t\r\n,]*")
"""White space and commas between the records of a JSON array."""


class ShardKind(str, Enum):
    """How the pictures of a shard are stored."""

    FILES = "files"
    TAR = "tar"
    PARQUET = "parquet"

    def __str__(self) -> str:
        return self.value


class Listed(NamedTuple):
    """A picture of a list: its key, which is its path relative to the root, or why the list names none."""

    key: str
    error: str | None = None


@dataclass(frozen=True)
class Shard:
    """A part of an input that becomes one file.

    ``location`` is the tar or Parquet file, or the folder that ``files`` are relative to. ``column`` is the Parquet
    column with the pictures, ``limit`` the largest number of pictures to take from a tar or Parquet file.
    """

    name: str
    kind: ShardKind
    location: str
    files: tuple[Listed, ...] = ()
    column: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class InputOptions:
    """How inputs are cut into shards.

    ``size`` is the number of pictures of a shard of files; tars and Parquet files are shards as they are.
    ``image_root`` is what the paths of lists are relative to, ``column`` the Parquet column with the pictures,
    ``limit`` the number of pictures to take.
    """

    size: int = 1000
    image_root: str = ""
    column: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"a shard has at least 1 picture, but got the size {self.size}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"the limit is the number of pictures to take, 1 or more, but got {self.limit}")


def list_shards(inputs: Iterable[str], options: InputOptions) -> Iterator[Shard]:
    """Yield the shards of the inputs, in order; names depend on the inputs alone.

    Raises :class:`DatasetError` for an input that is not there or of no known kind, :class:`UsageError` for two shards
    of one name, which would overwrite each other.
    """
    shards = chain.from_iterable(_shards_of(location, options) for text in inputs for location in _expanded(text))
    owners: dict[str, str] = {}
    for shard in shards if options.limit is None else _limited(shards, options.limit):
        if shard.name in owners:
            raise UsageError(
                f"{owners[shard.name]} and {shard.location} would both write the shard {shard.name!r}; write them to "
                "two folders, or rename one"
            )
        owners[shard.name] = shard.location
        yield shard


def _expanded(text: str) -> list[str]:
    if text == STANDARD_INPUT:
        return [text]
    found = matches(text)
    if not found:
        raise DatasetError(
            f"the input matches no file: {text}; give folders, .tar, .parquet, .json, .jsonl or .txt files, quoted "
            "patterns of them, or - for a list on standard input"
        )
    return found


def _shards_of(location: str, options: InputOptions) -> Iterator[Shard]:
    path = PurePosixPath(location)
    suffix = path.suffix.lower()
    if location == STANDARD_INPUT:
        yield from _cut("stdin", options.image_root, _lines(sys.stdin), options.size)
    elif suffix == ".tar":
        yield Shard(path.stem, ShardKind.TAR, location)
    elif suffix == ".parquet":
        yield Shard(path.stem, ShardKind.PARQUET, location, column=options.column)
    elif is_folder(location):
        found = _folder_files(location)
        name = path.name if path.name not in ("", ".", "..") else Path(location).resolve().name
        yield from _cut(name, location, found, options.size)
    elif suffix in _LISTS:
        yield from _cut(path.stem, options.image_root, _unique(_read_list(location, suffix)), options.size)
    else:
        raise DatasetError(
            f"{location} is no input of mvde stats; give a folder of pictures, a .tar, a .parquet, or a list of paths "
            "(.json, .jsonl or .txt)"
        )


def _cut(name: str, root: str, files: Iterable[Listed], size: int) -> Iterator[Shard]:
    """Shards of ``size`` files each; ``NAME-000000`` and so on."""
    files = iter(files)
    for index in range(sys.maxsize):
        part = tuple(islice(files, size))
        if not part:
            return
        yield Shard(f"{name}-{index:06d}", ShardKind.FILES, root, part)


def _limited(shards: Iterable[Shard], limit: int) -> Iterator[Shard]:
    """The shards up to ``limit`` files; each tar and Parquet file takes at most the rest, and is counted as full."""
    for shard in shards:
        if limit <= 0:
            return
        if shard.kind is ShardKind.FILES:
            yield replace(shard, files=shard.files[:limit])
            limit -= len(shard.files)
        else:
            yield replace(shard, limit=limit)
            limit -= num_rows(shard)


def num_rows(shard: Shard) -> int:
    """Number of pictures of a shard, read from its file where it is not known."""
    if shard.kind is ShardKind.FILES:
        return len(shard.files)
    from mvde.bulk.reading import count_items

    return count_items(shard)


def _folder_files(folder: str) -> Iterator[Listed]:
    found = False
    for path in walk(folder):
        if is_image_path(Path(path)):
            found = True
            yield Listed(path)
    if not found:
        raise DatasetError(f"the folder holds no image: {folder}; tars and Parquet files are named by a pattern")


def _lines(stream: Iterable[str]) -> Iterator[Listed]:
    return _unique(Listed(line.strip()) for line in stream if line.strip())


def _unique(files: Iterable[Listed]) -> Iterator[Listed]:
    """Each picture once, at its first mention; remembers hashes only, 8 bytes a picture."""
    import numpy as np

    files, seen = iter(files), _Seen()
    while part := list(islice(files, _PART)):
        codes = np.fromiter((hash(file.key if file.error is None else file) for file in part), np.int64, len(part))
        yield from compress(part, seen.add(codes).tolist())


class _Seen:
    """Hashes that were there, as sorted runs of which each is longer than all after it: a set would take 60 bytes."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []

    def add(self, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add hashes, and return which of them are new, the first of equal ones."""
        import numpy as np

        found, first = np.unique(codes, return_index=True)
        is_first = np.ones(len(found), bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, found), len(run) - 1)  # in order, so that few caches are missed
            is_first &= run[places] != found
        is_new, added = np.zeros(len(codes), bool), found[is_first]
        is_new[first[is_first]] = True
        while self._runs and len(self._runs[-1]) <= len(added):
            added = np.sort(np.concatenate([self._runs.pop(), added]), kind="stable")
        if len(added):
            self._runs.append(added)
        return is_new


def _read_list(location: str, suffix: str) -> Iterator[Listed]:
    try:
        with open_file(location) as stream:
            yield from _LISTS[suffix](stream, location)
    except OSError as error:
        raise DatasetError(f"cannot read {location}: {error.strerror or error}") from error


def _text_lines(stream: IO[bytes], _: str) -> Iterator[Listed]:
    for line in stream:
        if text := line.decode("utf-8", "replace").strip():
            yield Listed(text)


def _json_lines(stream: IO[bytes], location: str) -> Iterator[Listed]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Listed(f"{PurePosixPath(location).name}:{number}", f"line {number} of {location} is no JSON: {error}")
        else:
            yield from _pictures_of(record)


def _json_array(stream: IO[bytes], location: str) -> Iterator[Listed]:
    """Records of a JSON array, parsed one at a time, so that a file of any size fits in memory."""
    characters = io.TextIOWrapper(stream, "utf-8", "replace")
    decoder, text, place = json.JSONDecoder(), characters.read(_CHUNK_CHARACTERS).lstrip(), 1
    if not text.startswith("["):
        raise DatasetError(f"{location} is no list of conversations: a JSON array of records is expected")
    while True:
        found = _BETWEEN.match(text, place)
        place = found.end() if found else place
        if text.startswith("]", place):
            return
        try:
            record, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            more = characters.read(_CHUNK_CHARACTERS)
            if not more:
                raise DatasetError(f"{location} is cut off or no JSON array; is it complete?") from None
            text, place = text[place:] + more, 0
        else:
            yield from _pictures_of(record)


def _pictures_of(record: Any) -> Iterator[Listed]:
    """Pictures of a LLaVA record: its ``image``, a path or a list of paths; none for a conversation without."""
    image = record.get("image") if isinstance(record, dict) else record
    for path in image if isinstance(image, list) else [image]:
        if isinstance(path, str) and path:
            yield Listed(path)


def location_of(shard: Shard, key: str) -> str:
    """Where a picture of a shard of files lies."""
    return joined(shard.location, key)


_LISTS = {".json": _json_array, ".jsonl": _json_lines, ".ndjson": _json_lines, ".txt": _text_lines}
