"""A worker's part: the pictures of a shard to its file, with a record beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.bulk.columns import Row
from mvde.bulk.formats import OutputFormat, StatsDtype
from mvde.bulk.inputs import Shard, ShardKind, location_of
from mvde.bulk.locations import size_of
from mvde.bulk.patches import EnginePatches, Patches
from mvde.bulk.reading import Item, read_items
from mvde.bulk.writing import Layout, write_rows
from mvde.camera import Camera
from mvde.engines.machine import cpu_name
from mvde.engines.opened import OpenedEngine, open_verified
from mvde.engines.store import find, load_engine
from mvde.errors import ImageError, UsageError
from mvde.files import atomic_write
from mvde.image import decode_image
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.stream import pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.runtime.frame_camera import CameraOf


@dataclass(frozen=True)
class CameraRule:
    """Camera of each picture: a field of view in degrees (horizontal, vertical), or intrinsics of one size of picture.

    Intrinsics that come with a picture win. A picture of another size than the intrinsics' is an error row.
    """

    fov_deg: tuple[float, float] | None = None
    camera: Camera | None = None

    def __call__(self, size: tuple[int, int]) -> Camera | None:
        """Camera of a picture of ``size`` (H, W), if the rule gives one."""
        return self.camera if self.fov_deg is None else Camera.from_fov(*self.fov_deg, size)

    def __str__(self) -> str:
        if self.fov_deg is not None:
            return "field of view {:g}x{:g} degrees".format(*self.fov_deg)
        return "as each picture states, else assumed" if self.camera is None else f"{self.camera}"


@dataclass(frozen=True)
class Work:
    """What every worker does: the engine's path, and how its statistics are computed and stored."""

    engine: Path
    out: Path
    layout: Layout
    output_format: OutputFormat
    fit: str
    camera: CameraRule
    calibration: Path | None = None
    threads: int = 1
    patches: Patches = field(default_factory=EnginePatches)

    def path_of(self, shard: str) -> Path:
        """File of a shard's rows."""
        return self.out / f"{shard}{self.output_format.suffix}"

    def record_of(self, shard: str) -> Path:
        """Record beside it."""
        return self.out / f"{shard}.json"


@dataclass(frozen=True)
class ShardReport:
    """Result of a shard: rows, errors among them, up to ten of the errors, and columns stored as float32 after all.

    ``input_sha256`` identifies what was read, by names and sizes. ``engine_sha256``, ``cpu`` and ``library`` are those
    it ran with.
    """

    name: str
    rows: int
    errors: int
    input_sha256: str
    engine_sha256: str
    cpu: str
    library: str
    widened: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


_EXAMPLES = 10
"""Errors that a report names; all of them are in the rows."""


def open_engine(path: Path) -> OpenedEngine:
    """The engine in memory, verified; spawned processes share it."""
    return open_verified(find(path).path)


class ShardWorker:
    """An engine that computes shard after shard."""

    def __init__(self, work: Work, opened: OpenedEngine) -> None:
        """Load the engine with the work's number of threads. Raises what :func:`load_engine` raises."""
        self._work = work
        engine, manifest = load_engine(opened, work.layout.names, work.threads)
        self._runtime = DepthRuntime(engine, manifest, work.camera, work.layout.names, calibration=work.calibration)
        self._engine_sha256 = manifest.file.sha256

    def run(self, shard: Shard) -> ShardReport:
        """Compute a shard and publish its record, then its file; a file that is there is complete.

        Raises :class:`DatasetError` for a tar or Parquet file that cannot be read at all, :class:`OutputError` if the
        file cannot be written, :class:`BackendError` if the engine fails.
        """
        work = self._work
        decoded = pipeline(read_items(shard), _decoded, self._row, lambda row: [row])
        rows: list[Row] = list(decoded)
        with atomic_write(work.path_of(shard.name)) as path:
            columns = write_rows(path, rows, work.layout, work.output_format)
            errors = [row.error for row in rows if row.error is not None]
            wide = (
                [column.name for column in columns if column.dtype != "float16"]
                if work.layout.dtype is StatsDtype.F2
                else []
            )
            report = ShardReport(
                shard.name,
                len(rows),
                len(errors),
                input_sha256(shard, rows),
                self._engine_sha256,
                cpu_name(),
                self._runtime.info.library_version,
                tuple(wide) if work.output_format is not OutputFormat.WEBDATASET else (),
                tuple(errors[:_EXAMPLES]),
            )
            with atomic_write(work.record_of(shard.name)) as beside:
                beside.write_text(json.dumps(dataclasses.asdict(report), indent=2, sort_keys=True) + "\n", "utf-8")
        return report

    def close(self) -> None:
        """Free the engine."""
        self._runtime.close()

    def _row(self, decoded: tuple[Item, NDArray[np.uint8] | None, str | None]) -> Row:
        item, image, error = decoded
        row = Row(item.key, item.source, item.offset, item.size, _hash_of(item), error=error)
        if image is None:
            return row
        size = (image.shape[0], image.shape[1])
        row = dataclasses.replace(row, height=size[0], width=size[1])
        try:
            camera = _camera_of(item, size, self._work.camera)
            work = self._work
            found = work.patches.rows(self._runtime, image, work.fit, work.layout.names, camera)
        except (ImageError, UsageError) as reason:  # of this picture: its size, its camera
            return dataclasses.replace(row, error=str(reason))
        focal = None if camera is None else camera.fx
        return dataclasses.replace(
            row, stats=found.stats, focal=focal, grid=found.grid, tiles=found.tiles, geometry=found.geometry
        )


def input_sha256(shard: Shard, rows: Sequence[Row]) -> str:
    """Identity of what a shard read: the size of its tar or Parquet file, or the names and sizes of its files."""
    if shard.kind is ShardKind.FILES:
        return _identity([(row.key, row.size) for row in rows])
    return _identity([(Path(shard.location).name, size_of(shard.location))])


def expected_input_sha256(shard: Shard) -> str:
    """Identity of what a shard would read now, without reading it."""
    if shard.kind is not ShardKind.FILES:
        return input_sha256(shard, ())
    sizes = [-1 if file.error else size_of(location_of(shard, file.key)) for file in shard.files]
    return _identity([(file.key, size) for file, size in zip(shard.files, sizes, strict=True)])


def _identity(files: list[tuple[str, int]]) -> str:
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _decoded(item: Item) -> tuple[Item, NDArray[np.uint8] | None, str | None]:
    if item.content is None:
        return item, None, item.error
    try:
        return item, decode_image(item.content, item.key), None
    except ImageError as error:
        return item, None, str(error)


def _hash_of(item: Item) -> bytes | None:
    return None if item.content is None else hashlib.sha256(item.content).digest()


def _camera_of(item: Item, size: tuple[int, int], rule: CameraOf) -> Camera | None:
    return rule(size) if item.camera is None else Camera(*item.camera, size=size)


def report_from(plain: dict[str, Any]) -> ShardReport:
    """A report as it was written beside a shard. Raises :class:`TypeError` for other keys."""
    lists = {name: tuple(plain[name]) for name in ("widened", "examples")}
    return ShardReport(**{**plain, **lists})
