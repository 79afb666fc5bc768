"""Random access to the frames of a shard: a WebDataset tar, or a Parquet file.

Both hold image files as they are: the picture, depth as 16-bit grey PNG or ``.npy``, and optionally the intrinsics.
"""

from __future__ import annotations

import json
import os
import tarfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.datasets.decode import read_array
from mvde.datasets.formats import ShardKind
from mvde.errors import DatasetError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm")
DEPTHS = ("depth.png", "depth.npy")
CAMERA = "json"
INDEX_SUFFIX = ".index.npy"
_LAYOUT = "a sample is KEY.jpg (or another picture) with KEY.depth.png or KEY.depth.npy, and KEY.json for its camera"
_CAMERA_COLUMNS = ("fx", "fy", "cx", "cy")
_PICTURE, _DEPTH, _CAMERA = range(3)
"""Places in the index of a tar, int64 (frames, 3, 2): byte and size of each part; the size of an absent one is -1."""


@dataclass(frozen=True)
class StoredFrame:
    """Bytes of a frame's picture and depth, and its intrinsics fx, fy, cx, cy in pixels, where known."""

    rgb: bytes
    depth: bytes
    intrinsics: tuple[float, float, float, float] | None


class ShardFile(ABC):
    """An open shard of ``num_frames`` frames. Methods raise DatasetError naming the file."""

    num_frames: int

    @abstractmethod
    def frame(self, row: int) -> StoredFrame:
        """Frame of a row, 0 <= row < num_frames."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""


def open_shard(path: Path, kind: ShardKind) -> ShardFile:
    """Open a shard. Raises DatasetError for a file that is missing, cut off, or of another layout."""
    try:
        return TarShard(path) if kind is ShardKind.WEBDATASET else ParquetShard(path)
    except OSError as error:
        raise DatasetError(f"cannot read the shard {path}: {error.strerror or error}") from error


class TarShard(ShardFile):
    """A tar, read by the offsets of its members: from the index beside it, or found by reading all headers.

    The headers of 1,000 frames take 0.2 s (``benchmarks/sampling.py``), the index a millisecond.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = _stored_index(path)
        self.num_frames = len(self._index)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def frame(self, row: int) -> StoredFrame:
        """Frame of a row."""
        rgb, depth, camera = (self._part(int(offset), int(size)) for offset, size in self._index[row])
        return StoredFrame(rgb, depth, _camera_of(camera, f"{self._path}:{row}"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _part(self, offset: int, size: int) -> bytes:
        if size < 0:
            return b""
        content = os.pread(self._descriptor, size, offset)  # shares no position with forked processes
        if len(content) < size:
            raise DatasetError(f"{self._path} is cut off: it ends before byte {offset + size}; copy it again")
        return content


def index_path(shard: Path) -> Path:
    """Where the index of a tar lies."""
    return shard.with_name(shard.name + INDEX_SUFFIX)


def _stored_index(path: Path) -> NDArray[np.int64]:
    """Index of a tar from the file beside it if that suits it, else from its headers."""
    stored = index_path(path)
    if stored.is_file():
        index = read_array(stored)
        if index.dtype == np.int64 and index.ndim == 3 and index.shape[1:] == (3, 2) and len(index):
            end = int(index.sum(axis=2).max())
            if end <= path.stat().st_size:
                return index
    return tar_index(path)


def tar_index(path: Path) -> NDArray[np.int64]:
    """Index of a tar's frames in order, int64 (frames, 3, 2), from its headers.

    Raises DatasetError for a tar that is cut off, or a sample that lacks its picture or its depth.
    """
    rows: dict[str, dict[int, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, part = _part_of(member.name)
                if part is None or not member.isreg():
                    continue
                if (
                    rows.setdefault(key, {}).setdefault(part, (member.offset_data, member.size))[0]
                    != member.offset_data
                ):
                    raise DatasetError(f"{path} has the sample {key!r} twice; keys within a shard must differ")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{path} is cut off or no tar: {error}; copy it again") from error
    index = np.full((len(rows), 3, 2), (0, -1), np.int64)
    for row, (key, parts) in enumerate(rows.items()):
        if _PICTURE not in parts or _DEPTH not in parts:
            lacks = "depth" if _PICTURE in parts else "picture"
            raise DatasetError(f"{path}: the sample {key!r} has no {lacks}; {_LAYOUT}")
        for part, place in parts.items():
            index[row, part] = place
    if not rows:
        raise DatasetError(f"{path} holds no sample; {_LAYOUT}")
    return index


def _part_of(name: str) -> tuple[str, int | None]:
    """Key of a member, the path up to the first dot of its last part, and what it is; ``None`` for another file."""
    folder, _, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    suffix, key = suffix.lower(), f"{folder}/{stem}" if folder else stem
    if suffix in PICTURES:
        return key, _PICTURE
    if suffix in DEPTHS:
        return key, _DEPTH
    return key, _CAMERA if suffix == CAMERA else None


def _camera_of(content: bytes, where: str) -> tuple[float, float, float, float] | None:
    """Intrinsics of a sample's JSON, where it has the key ``intrinsics``."""
    if not content:
        return None
    try:
        plain = json.loads(content)
        values = plain.get("intrinsics") if isinstance(plain, dict) else None
        return None if values is None else _intrinsics(*(float(value) for value in values))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{where}: its JSON has no intrinsics [fx, fy, cx, cy] in pixels: {error}") from error


def _intrinsics(fx: float, fy: float, cx: float, cy: float) -> tuple[float, float, float, float]:
    if not (np.isfinite([fx, fy, cx, cy]).all() and min(fx, fy) > 0):
        raise ValueError(f"focal lengths must be positive and all numbers finite, but got {(fx, fy, cx, cy)}")
    return fx, fy, cx, cy


class ParquetShard(ShardFile):
    """A Parquet file with the columns ``rgb`` and ``depth``, bytes of files, and optionally fx, fy, cx and cy.

    A read takes the row group around the frame, so groups should be small: ``mvde data pack`` writes 4 frames each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)
        meta = self._file.metadata
        self._ends = np.cumsum([meta.row_group(group).num_rows for group in range(meta.num_row_groups)], dtype=np.int64)
        self.num_frames = int(meta.num_rows)
        self._columns = _columns_of(self._file.schema_arrow, path)
        self._group: tuple[int, Any] | None = None

    def frame(self, row: int) -> StoredFrame:
        """Frame of a row."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        if self._group is None or self._group[0] != group:
            self._group = group, self._read(group)
        table = self._group[1]
        values: dict[str, Any] = table.slice(row - int(self._ends[group]) + len(table), 1).to_pylist()[0]
        rgb, depth = (_bytes_of(values[name]) for name in ("rgb", "depth"))
        if not rgb or not depth:
            raise DatasetError(f"{self._path}: row {row} has no {'depth' if rgb else 'picture'}")
        camera = [float(one) for name in _CAMERA_COLUMNS if (one := values.get(name)) is not None]
        try:
            return StoredFrame(rgb, depth, _intrinsics(*camera) if len(camera) == len(_CAMERA_COLUMNS) else None)
        except ValueError as error:
            raise DatasetError(f"{self._path}: row {row}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, group: int) -> Any:
        """Table of a row group."""
        import pyarrow

        try:
            return self._file.read_row_group(group, columns=self._columns, use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetError(f"{self._path} is damaged: {error}; copy it again") from error


def _opened(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "bulk", f"reading {path}") from error
    try:
        return ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is cut off or no Parquet file: {error}; copy it again") from error


def _columns_of(schema: Any, path: Path) -> list[str]:
    """Columns to read. Raises DatasetError unless picture and depth are bytes, or structures with ``bytes``."""
    import pyarrow

    for name in ("rgb", "depth"):
        place = schema.get_field_index(name)
        kind = schema.field(place).type if place >= 0 else None
        if kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            continue
        if kind is None or not (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)):
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise DatasetError(
                f"{path} has no column {name!r} of bytes; it has {columns}; a shard has rgb and depth, the bytes of "
                "image files, and optionally fx, fy, cx and cy in pixels"
            )
    return ["rgb", "depth", *(name for name in _CAMERA_COLUMNS if name in schema.names)]


def _bytes_of(value: Any) -> bytes | None:
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) else None
