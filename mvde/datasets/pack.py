"""Writing of data sets in shards, and the list of shards that other programs wrote."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mvde.datasets.decode import MILLIMETRES
from mvde.datasets.folder import DEPTH_RANGE_M, FolderDataset
from mvde.datasets.formats import ShardKind
from mvde.datasets.sample import DepthDataset, DepthSample
from mvde.datasets.shard_files import CAMERA, index_path, open_shard, tar_index
from mvde.datasets.shard_list import LIST_FILE, ShardEntry, ShardHeader, read_list
from mvde.errors import DatasetError, MissingDependencyError, OutputError, UsageError
from mvde.files import atomic_write

ProgressCallback = Callable[[int], None]

ROW_GROUP = 4
"""Frames of a Parquet row group, which are read together. In random order, one of 70 kB takes 0.5 ms of CPU in groups
of up to 4 and 0.9 ms in groups of 8 (2-core AMD EPYC); groups of 1 have a footer of 0.6 MB for 1,000 frames."""
_SCALES = (MILLIMETRES, 5000.0, 256.0)
"""Stored values of a metre in 16-bit PNGs: millimetres, and those of TUM RGB-D and of KITTI."""


@dataclass(frozen=True)
class _Packed:
    """A frame as the files that are stored."""

    key: str
    rgb: bytes
    rgb_suffix: str
    depth: bytes
    depth_suffix: str
    intrinsics: tuple[float, ...] | None


def pack(
    dataset: DepthDataset,
    root: Path,
    kind: ShardKind,
    shard_size: int,
    made_from: str,
    progress: ProgressCallback | None = None,
) -> int:
    """Write a data set to ``root`` in shards of ``shard_size`` frames; return the number of shards written now.

    Reading it back gives equal frames. Pictures of a :class:`FolderDataset` are copied as they are, others are stored
    as PNG. Depth is stored as 16-bit PNG where that is exact, else as float32. A run that was stopped goes on behind
    its last whole shard; ``made_from`` describes the data set, and another one in the folder is refused. ``progress``
    receives the number of finished frames. Raises UsageError for a size below 1 or a folder with other content,
    DatasetError for a frame that cannot be read, OutputError if the disk is full or not writable.
    """
    if shard_size < 1:
        raise UsageError(f"a shard has at least 1 frame, but got the size {shard_size}")
    count = len(dataset)
    num_shards = -(-count // shard_size)
    if not num_shards:
        raise DatasetError("the data set holds no frames; there is nothing to pack")
    header = ShardHeader(kind, num_shards, _scale_of(dataset[0]), dataset.depth_range_m, f"{made_from}, {shard_size}")
    done = _start(root, header)
    for number in range(len(done), num_shards):
        frames = range(number * shard_size, min((number + 1) * shard_size, count))
        path = root / f"shard-{number:06d}{kind.suffix}"
        packed = (_packed(dataset, index, header.depth_scale) for index in frames)
        with atomic_write(path) as temporary:
            (_write_tar if kind is ShardKind.WEBDATASET else _write_parquet)(temporary, packed)
        _append(root, _entry_of(path, kind))
        if progress is not None:
            progress(frames.stop)
    return num_shards - len(done)


def index_shards(root: Path, depth_scale: float | None = None, progress: ProgressCallback | None = None) -> int:
    """Write the list of the tars or Parquet files in ``root``, in order of name; return the number of frames.

    ``depth_scale`` is the stored value of one metre in PNGs, by default 1000. An existing list is replaced. Raises
    DatasetError for a folder without shards, with both kinds, or with one that cannot be read.
    """
    found = {kind: sorted(root.glob(f"*{kind.suffix}")) for kind in ShardKind}
    kinds = [kind for kind, paths in found.items() if paths]
    if len(kinds) != 1:
        held = "both .tar and .parquet files" if kinds else "no .tar or .parquet file"
        raise DatasetError(f"{root} holds {held}; expected the shards of one kind in a folder")
    paths = found[kinds[0]]
    entries = []
    for path in paths:
        entries.append(_entry_of(path, kinds[0]))
        if progress is not None:
            progress(len(entries))
    header = ShardHeader(kinds[0], len(paths), depth_scale or MILLIMETRES, DEPTH_RANGE_M, "other shards")
    with atomic_write(root / LIST_FILE) as temporary:
        temporary.write_text(header.line() + "".join(entry.line() for entry in entries), encoding="utf-8")
    return sum(entry.num_frames for entry in entries)


def _entry_of(path: Path, kind: ShardKind) -> ShardEntry:
    """Line of a shard, which is read for it; writes the index of a tar."""
    if kind is ShardKind.WEBDATASET:
        index = tar_index(path)
        with atomic_write(index_path(path)) as temporary:
            np.save(temporary, index)
        return ShardEntry(path.name, len(index), path.stat().st_size)
    with closing(open_shard(path, kind)) as file:
        return ShardEntry(path.name, file.num_frames, path.stat().st_size)


def _start(root: Path, header: ShardHeader) -> list[ShardEntry]:
    """The shards that are finished; the folder's list ends with them."""
    if not (root / LIST_FILE).exists():
        if root.exists() and (not root.is_dir() or any(not path.name.startswith(".") for path in root.iterdir())):
            raise UsageError(f"{root} is no empty folder; choose another one for the shards")
        return _rewrite(root, header, [])
    before, done = read_list(root)
    if before != header:
        raise UsageError(
            f"{root} holds shards of something else: {before} instead of {header}; choose another folder, or remove it"
        )
    return _rewrite(root, header, done) if len(done) < header.num_shards else done


def _rewrite(root: Path, header: ShardHeader, done: list[ShardEntry]) -> list[ShardEntry]:
    with atomic_write(root / LIST_FILE) as temporary:
        temporary.write_text(header.line() + "".join(entry.line() for entry in done), encoding="utf-8")
    return done


def _append(root: Path, entry: ShardEntry) -> None:
    try:
        with (root / LIST_FILE).open("a", encoding="utf-8") as stream:
            stream.write(entry.line())
    except OSError as error:
        raise OutputError(f"cannot write {root / LIST_FILE}: {error.strerror or error}; free disk space") from error


def _packed(dataset: DepthDataset, index: int, depth_scale: float) -> _Packed:
    sample = dataset[index]
    if isinstance(dataset, FolderDataset):
        path = dataset.rgb_path(index)
        rgb, rgb_suffix = path.read_bytes(), path.suffix.lower().removeprefix(".")
    else:
        rgb, rgb_suffix = _png(sample.rgb), "png"
    stored = _as_integers(sample, depth_scale)
    depth, suffix = (_npy(sample.depth_m), "depth.npy") if stored is None else (_png(stored), "depth.png")
    camera = None if sample.intrinsics is None else tuple(float(value) for value in sample.intrinsics)
    return _Packed(f"{index:09d}", rgb, rgb_suffix, depth, suffix, camera)


def _scale_of(sample: DepthSample) -> float:
    """The first of the usual scales whose whole numbers hold the depth of a frame exactly, else millimetres."""
    return next((scale for scale in _SCALES if _as_integers(sample, scale) is not None), MILLIMETRES)


def _as_integers(sample: DepthSample, scale: float) -> np.ndarray[Any, np.dtype[np.uint16]] | None:
    """Depth (H, W) as whole numbers that give the same float32 when they are read; ``None`` if there are none."""
    depth_m = sample.depth_m
    if not (np.isfinite(depth_m).all() and depth_m.min() >= 0 and depth_m.max() * scale < 65535.5):
        return None
    stored = np.rint(depth_m * np.float32(scale)).astype(np.uint16)
    return stored if np.array_equal(stored.astype(np.float32) / np.float32(scale), depth_m) else None


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _npy(depth_m: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(depth_m, np.float32))
    return content.getvalue()


def _write_tar(path: Path, frames: Iterator[_Packed]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for frame in frames:
            _add(tar, f"{frame.key}.{frame.rgb_suffix}", frame.rgb)
            _add(tar, f"{frame.key}.{frame.depth_suffix}", frame.depth)
            if frame.intrinsics is not None:
                _add(tar, f"{frame.key}.{CAMERA}", json.dumps({"intrinsics": frame.intrinsics}).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner, time and mode are fixed, so that equal frames give equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _write_parquet(path: Path, frames: Iterator[_Packed]) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "bulk", "writing Parquet") from error
    cameras = ("fx", "fy", "cx", "cy")
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("rgb", pa.binary()),
            ("depth", pa.binary()),
            *((name, pa.float32()) for name in cameras),
        ]
    )
    # Pictures are compressed already; statistics of their bytes would be long.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with parquet.ParquetWriter(str(path), schema, **options) as writer:
        while rows := [frame for _, frame in zip(range(ROW_GROUP), frames, strict=False)]:
            values = [row.intrinsics or (None,) * len(cameras) for row in rows]
            columns = {"key": [row.key for row in rows], "rgb": [row.rgb for row in rows]}
            columns |= {"depth": [row.depth for row in rows]}
            columns |= {name: [value[place] for value in values] for place, name in enumerate(cameras)}
            writer.write_table(pa.table(columns, schema=schema))
