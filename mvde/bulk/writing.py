"""Files of a shard's rows: Parquet, Arrow IPC, or a WebDataset tar; equal rows give equal bytes."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.bulk.columns import Row, StoredColumn, stats_of, store
from mvde.bulk.formats import OutputFormat, StatsDtype
from mvde.errors import MissingDependencyError

if TYPE_CHECKING:
    import pyarrow

METADATA_KEY = b"mvde"
"""Key of the metadata of Parquet and Arrow files: JSON with the fingerprint and the stored columns."""
STATS_SUFFIX, ERROR_SUFFIX, RECORD_SUFFIX = "depth_stats.npy", "depth_error.txt", "depth_stats.json"
_ROW_GROUP = 256
_DICTIONARY = ["source", "error"]


@dataclass(frozen=True)
class Layout:
    """What a file holds besides its rows: names of the statistics, grid, dtype, and the text of the fingerprint."""

    names: tuple[str, ...]
    grid: tuple[int, int]
    dtype: StatsDtype
    fingerprint: str

    @property
    def num_patches(self) -> int:
        """Rows times columns of the grid."""
        return self.grid[0] * self.grid[1]


def write_rows(path: Path, rows: Sequence[Row], layout: Layout, form: OutputFormat) -> tuple[StoredColumn, ...]:
    """Write a shard's rows to ``path`` and return how its statistics are stored."""
    if form is OutputFormat.WEBDATASET:
        return _write_tar(path, rows, layout)
    table, columns = _table(rows, layout)
    if form is OutputFormat.ARROW:
        from pyarrow import ipc

        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=_ROW_GROUP)
    else:
        from pyarrow import parquet

        parquet.write_table(
            table,
            str(path),
            compression="zstd",
            row_group_size=_ROW_GROUP,
            use_dictionary=_DICTIONARY,
            # An encoding of a list column applies under the path of its leaf only.
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in layout.names},
        )
    return columns


def _table(rows: Sequence[Row], layout: Layout) -> tuple[pyarrow.Table, tuple[StoredColumn, ...]]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "bulk", "writing Parquet and Arrow files") from error

    absent = pa.array([row.stats is None for row in rows])
    stored = [store(name, values, layout.dtype) for name, values in _values(rows, layout).items()]
    columns = tuple(column for column, _ in stored)
    size = layout.num_patches
    lists = [pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), size, mask=absent) for _, values in stored]
    grid = pa.array([None if row.stats is None else list(layout.grid) for row in rows], pa.list_(pa.int16(), 2))
    fields: dict[str, Any] = {
        "key": pa.array([row.key for row in rows], pa.string()),
        "source": pa.array([row.source for row in rows], pa.string()),
        "offset": pa.array([row.offset for row in rows], pa.int64()),
        "size": pa.array([row.size for row in rows], pa.int64()),
        "sha256": pa.array([row.sha256 for row in rows], pa.binary(32)),
        "height": pa.array([row.height for row in rows], pa.int32()),
        "width": pa.array([row.width for row in rows], pa.int32()),
        "grid": grid,
        "tiles": pa.array([None if row.stats is None else 1 for row in rows], pa.int16()),
        **{column.name: one for column, one in zip(columns, lists, strict=True)},
        "focal": pa.array([row.focal for row in rows], pa.float32()),
        "error": pa.array([row.error for row in rows], pa.string()),
    }
    described = {"fingerprint": json.loads(layout.fingerprint), "columns": [dataclasses.asdict(one) for one in columns]}
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True).encode()}
    return pa.table(fields).replace_schema_metadata(metadata), columns


def _values(rows: Sequence[Row], layout: Layout) -> dict[str, np.ndarray[Any, Any]]:
    return stats_of(rows, layout.names, layout.num_patches)


def _write_tar(path: Path, rows: Sequence[Row], layout: Layout) -> tuple[StoredColumn, ...]:
    """One ``KEY.depth_stats.npy`` a picture, (N, S), float32 as the statistics are, with its record as JSON."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for row in rows:
            if row.stats is None:
                _add(tar, f"{row.key}.{ERROR_SUFFIX}", (row.error or "").encode())
                continue
            content = io.BytesIO()
            np.save(content, row.stats)
            _add(tar, f"{row.key}.{STATS_SUFFIX}", content.getvalue())
            record = {"source": row.source, "offset": row.offset, "size": row.size, "sha256": (row.sha256 or b"").hex()}
            record |= {"height": row.height, "width": row.width, "grid": list(layout.grid), "focal": row.focal}
            _add(tar, f"{row.key}.{RECORD_SUFFIX}", json.dumps(record, sort_keys=True).encode())
    return tuple(StoredColumn(name, False, "float32") for name in layout.names)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner, time and mode are fixed, so that equal rows give equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
