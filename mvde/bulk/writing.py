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
    from numpy.typing import NDArray

METADATA_KEY = b"mvde"
"""Key of the metadata of Parquet and Arrow files: JSON with the fingerprint and the stored columns."""
STATS_SUFFIX, ERROR_SUFFIX, RECORD_SUFFIX = "depth_stats.npy", "depth_error.txt", "depth_stats.json"
GEOMETRY_BYTES = 8
"""Of the hash that says which pixels a row's patches are of, where the number of patches depends on the picture."""
_ROW_GROUP = 256
_DICTIONARY = ["source", "error"]


@dataclass(frozen=True)
class Layout:
    """What a file holds besides its rows: names of the statistics, grid, dtype, and the text of the fingerprint.

    Without a ``grid`` each row has patches of its own number.
    """

    names: tuple[str, ...]
    grid: tuple[int, int] | None
    dtype: StatsDtype
    fingerprint: str


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

    stored = [store(name, values, layout.dtype) for name, values in stats_of(rows, layout.names).items()]
    columns = tuple(column for column, _ in stored)
    lists = [_list_of(values, rows, layout) for _, values in stored]
    own = {} if layout.grid else {"geometry": pa.array([row.geometry for row in rows], pa.binary(GEOMETRY_BYTES))}
    fields: dict[str, Any] = {
        "key": pa.array([row.key for row in rows], pa.string()),
        "source": pa.array([row.source for row in rows], pa.string()),
        "offset": pa.array([row.offset for row in rows], pa.int64()),
        "size": pa.array([row.size for row in rows], pa.int64()),
        "sha256": pa.array([row.sha256 for row in rows], pa.binary(32)),
        "height": pa.array([row.height for row in rows], pa.int32()),
        "width": pa.array([row.width for row in rows], pa.int32()),
        "grid": pa.array([row.grid for row in rows], pa.list_(pa.int16(), 2)),
        "tiles": pa.array([row.tiles for row in rows], pa.int16()),
        **own,
        **{column.name: one for column, one in zip(columns, lists, strict=True)},
        "focal": pa.array([row.focal for row in rows], pa.float32()),
        "error": pa.array([row.error for row in rows], pa.string()),
    }
    described = {"fingerprint": json.loads(layout.fingerprint), "columns": [dataclasses.asdict(one) for one in columns]}
    metadata = {METADATA_KEY: json.dumps(described, sort_keys=True).encode()}
    return pa.table(fields).replace_schema_metadata(metadata), columns


def _list_of(values: NDArray[Any], rows: Sequence[Row], layout: Layout) -> pyarrow.Array:
    """Column of lists, null for an error: of one size for a grid, else each of its row's number of patches."""
    import pyarrow as pa

    absent = np.array([row.stats is None for row in rows], bool)
    if layout.grid is not None:
        filled = np.zeros((len(rows), layout.grid[0] * layout.grid[1]), values.dtype)
        filled[~absent] = values.reshape(-1, filled.shape[1])
        return pa.FixedSizeListArray.from_arrays(pa.array(filled.ravel()), filled.shape[1], mask=pa.array(absent))
    sizes = [0 if row.stats is None else len(row.stats) for row in rows]
    offsets = np.cumsum([0, *sizes], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(absent))


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
            record: dict[str, Any] = {"source": row.source, "offset": row.offset, "size": row.size}
            record |= {"sha256": (row.sha256 or b"").hex()}
            record |= {"height": row.height, "width": row.width, "grid": row.grid, "tiles": row.tiles}
            record |= {"focal": row.focal, "geometry": None if row.geometry is None else row.geometry.hex()}
            _add(tar, f"{row.key}.{RECORD_SUFFIX}", json.dumps(record, sort_keys=True).encode())
    return tuple(StoredColumn(name, False, "float32") for name in layout.names)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner, time and mode are fixed, so that equal rows give equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
