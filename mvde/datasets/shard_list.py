"""The list of a data set's shards, ``shards.jsonl``: a header, then a line for each finished shard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mvde.datasets.formats import ShardKind
from mvde.errors import DatasetError

LIST_FILE = "shards.jsonl"
FORMAT = "mvde-shards-1"
_REMEDY = "make it with mvde data pack, or with mvde data index for shards of another program"


@dataclass(frozen=True)
class ShardHeader:
    """What holds for all shards of a data set.

    ``depth_scale`` is the stored value of one metre in depth maps of whole numbers, ``depth_range_m`` what counts as
    ground truth, ``made_from`` the description of what was packed.
    """

    kind: ShardKind
    num_shards: int
    depth_scale: float
    depth_range_m: tuple[float, float]
    made_from: str = ""

    def line(self) -> str:
        """First line of the list."""
        return json.dumps({"format": FORMAT, **asdict(self)}) + "\n"


@dataclass(frozen=True)
class ShardEntry:
    """A shard: its file's name in the folder, its number of frames, and its size in bytes."""

    name: str
    num_frames: int
    size_bytes: int

    def line(self) -> str:
        """Line of the list."""
        return json.dumps(asdict(self)) + "\n"


def read_list(root: Path) -> tuple[ShardHeader, list[ShardEntry]]:
    """Read the header and the finished shards of a folder. Raises DatasetError for a list that is missing or damaged.

    A last line without its end was being written when its program was killed, and does not count.
    """
    path = root / LIST_FILE
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise DatasetError(f"{root} has no {LIST_FILE}, so it is no data set in shards; {_REMEDY}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {error}; {_REMEDY}") from error
    if not lines:
        raise DatasetError(f"{path} is empty; {_REMEDY}")
    entries = [_entry(plain, f"{path}:{number}") for number, plain in _parsed(path, lines[1:])]
    return _header(lines[0], path), entries


def read_whole_list(root: Path) -> tuple[ShardHeader, list[ShardEntry]]:
    """Read the list of a folder that is finished. Raises DatasetError if it lacks shards, or holds no frame."""
    header, entries = read_list(root)
    if len(entries) != header.num_shards:
        raise DatasetError(
            f"{root / LIST_FILE} lists {len(entries)} of {header.num_shards} shards; run the command that made it "
            "again, which goes on where it was stopped"
        )
    if not any(entry.num_frames for entry in entries):
        raise DatasetError(f"{root} holds no frames; {_REMEDY}")
    return header, entries


def _parsed(path: Path, lines: list[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 2):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}:{number} is no JSON: {error}; {_REMEDY}") from error


def _header(line: str, path: Path) -> ShardHeader:
    try:
        plain = json.loads(line)
        form = plain.pop("format", None)
        if form != FORMAT:
            raise DatasetError(f"{path} has the format {form!r}; this version reads {FORMAT!r}; {_REMEDY}")
        near, far = plain.pop("depth_range_m")
        header = ShardHeader(kind=ShardKind(plain.pop("kind")), depth_range_m=(float(near), float(far)), **plain)
        sound = 0 < header.depth_scale < math.inf and 0 <= near < far and header.num_shards > 0
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DatasetError(f"{path} has no header of a list of shards: {error}; {_REMEDY}") from error
    if not sound:
        raise DatasetError(f"{path} has a header with values out of range: {header}; {_REMEDY}")
    return header


def _entry(plain: Any, where: str) -> ShardEntry:
    try:
        entry = ShardEntry(**plain)
        sound = Path(entry.name).name == entry.name and min(entry.num_frames, entry.size_bytes) >= 0
    except TypeError:
        sound = False
    if not sound:
        raise DatasetError(f"{where} is {plain!r}; expected name, num_frames and size_bytes of a shard; {_REMEDY}")
    return entry
