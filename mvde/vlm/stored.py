"""Statistics that ``mvde stats`` computed before, as a source of depth: checked against what the tower sees."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.bulk.folder import StatsFolder
from mvde.bulk.shards import PictureRecord
from mvde.bulk.writing import GEOMETRY_BYTES
from mvde.contract import DepthKind
from mvde.errors import DatasetError, ImageError, UsageError
from mvde.runtime.placement import Box, Placement, place
from mvde.vlm.config import CameraRule
from mvde.vlm.geometry import Geometry
from mvde.vlm.rows import StoredRows, placement_of
from mvde.vlm.sources import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera

_LOG = logging.getLogger(__name__)
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
_FOCAL_TOLERANCE = 1e-3
"""Relative; the focal length is stored in float32, and metres are proportional to it."""


class StoredStats:
    """Rows of a folder of ``mvde stats``, for the processor that they were computed for.

    A picture is found by its path relative to ``image_root``, which is the folder, or the root of the list, that
    ``mvde stats`` was given. Statistics of a processor's patches (``--processor``) are used only where the trainer's
    processor sees exactly these patches; those of the engine's grid where the tower sees the whole picture in that
    grid, fitted in the same way. A picture whose row is an error has no depth; ``num_missing`` counts them.
    """

    def __init__(self, folder: StatsFolder | str | Path, image_root: str | Path = "") -> None:
        """Open a folder. Raises :class:`ArtifactError` if it holds no statistics."""
        self._folder = folder if isinstance(folder, StatsFolder) else StatsFolder(folder)
        self._root = image_root
        self.num_missing = 0

    @property
    def depth_kind(self) -> DepthKind:
        """Kind of the depth that the statistics are of."""
        return DepthKind(self._folder.fingerprint["depth_kind"])

    @property
    def camera_rule(self) -> CameraRule:
        """The frame's for kinds with a canonical camera."""
        return CameraRule.FRAME if self.depth_kind.has_canonical_camera else CameraRule.NONE

    @property
    def graph_sha256(self) -> str | None:
        """SHA-256 of the fp32 graph that the engine was built from."""
        found: str = self._folder.fingerprint["graph_sha256"]
        return found

    def depth_of(self, picture: Picture, camera: Camera | None) -> StoredRows | None:
        """Rows of a picture, ``None`` where it could not be read.

        Raises :class:`DatasetError` for one that the folder does not have, :class:`UsageError` for one that is turned,
        of another size or of another camera than the statistics.
        """
        key = self._key_of(picture)
        try:
            stats, record = self._folder.picture(key)
        except ImageError as error:
            if not self.num_missing:
                _LOG.warning("%s; such pictures go without depth", error)
            self.num_missing += 1
            return None
        _check_upright(picture, record)
        if self.depth_kind.has_canonical_camera:
            _check_camera(picture, record, camera)
        rows_of = partial(self._rows_of, picture=picture, stats=stats, record=record)
        return StoredRows(self._folder.stat_names, rows_of, picture.name, camera)

    def _key_of(self, picture: Picture) -> str:
        if picture.path is None:
            raise UsageError(
                "stored statistics are found by the picture's path, but this picture was given without one; give its "
                "path, or its depth with depth="
            )
        path = PurePosixPath(picture.path.as_posix())
        if self._root and path.is_relative_to(Path(self._root).as_posix()):
            path = path.relative_to(Path(self._root).as_posix())
        in_tar = path.with_name(path.name.partition(".")[0])  # WebDataset's key
        found = next((str(key) for key in (path, in_tar) if str(key) in self._folder), None)
        if found is None:
            example = next(self._folder.all_keys(), None)
            raise DatasetError(
                f"{self._folder.path} has no statistics of {path}; its keys are as {example!r}: give the folder that "
                "they are relative to, StoredStats(folder, image_root=...), or compute those that are missing"
            )
        return found

    def _rows_of(
        self, geometry: Geometry, number: int, *, picture: Picture, stats: NDArray[np.float32], record: PictureRecord
    ) -> list[NDArray[np.float32]]:
        """Rows of each map of the picture of a ``number``, in the tower's order."""
        indices = maps_of(geometry, number)
        if record.geometry is None:
            self._check_grid(geometry, indices, picture)
            return [stats[geometry.orders[indices[0]]]]
        if record.geometry != geometry_digest(geometry, number):
            there = self._folder.fingerprint["processor"]
            raise UsageError(
                f"the statistics of {picture.name} are of other patches than this processor sees ({len(stats)} of "
                f"{there}); compute them with --processor and this model's folder, or use that processor as it was"
            )
        ends = np.cumsum([len(geometry.orders[index]) for index in indices])
        return np.split(stats, ends[:-1])

    def _check_grid(self, geometry: Geometry, indices: list[int], picture: Picture) -> None:
        """Raise :class:`UsageError` unless the tower sees the whole picture in the engine's grid and fit."""
        record: dict[str, Any] = self._folder.fingerprint
        way_out = "; compute them for it: mvde stats --processor DIR"
        if len(indices) != 1:
            raise UsageError(
                f"the statistics of {picture.name} are of one grid of patches, but this processor shows it to the "
                f"tower in {len(indices)} parts{way_out}"
            )
        traced, patch = geometry.maps[indices[0]], geometry.patch_size
        grid, resolution = (traced.size[0] // patch, traced.size[1] // patch), tuple(record["resolution"])
        if grid != self._folder.grid:
            raise UsageError(
                f"the statistics of {picture.name} are of {self._folder.grid} patches (rows, columns), but the tower "
                f"sees {grid}{way_out}"
            )
        if "grad" in self._folder.stat_names and traced.size != resolution:
            raise UsageError(
                f"grad is per pixel of the input, which was {resolution} (H, W) for the statistics and is "
                f"{traced.size} for the tower{way_out}"
            )
        expected = place(picture.size, (resolution[0], resolution[1]), record["fit"])
        if not _is_like(placement_of(traced, picture.size), expected):
            raise UsageError(
                f"the statistics of {picture.name} were computed with the fit {record['fit']}, but this processor "
                f"crops or pads it otherwise{way_out}"
            )


def maps_of(geometry: Geometry, number: int) -> list[int]:
    """Indices of the maps of the picture of a ``number``, in the tower's order."""
    return [index for index, traced in enumerate(geometry.maps) if traced.picture == number]


def geometry_digest(geometry: Geometry, number: int) -> bytes:
    """Hash of which pixels of a picture are seen in which patches, 8 bytes, whatever else is in the call."""
    digest = hashlib.sha256(f"{geometry.arrangement.value} {geometry.patch_size}".encode())
    for index in maps_of(geometry, number):
        traced, order = geometry.maps[index], geometry.orders[index]
        digest.update(f" {traced.size}".encode())
        for values in (traced.rows, traced.columns, order):
            digest.update(np.ascontiguousarray(values, "<i4").tobytes())
    return digest.digest()[:GEOMETRY_BYTES]


def _check_upright(picture: Picture, record: PictureRecord) -> None:
    orientation = _UPRIGHT
    if hasattr(picture.image, "getexif"):
        orientation = picture.image.getexif().get(_ORIENTATION_TAG, _UPRIGHT)
    if orientation != _UPRIGHT:
        raise UsageError(
            f"{picture.name} has the EXIF orientation {orientation}, but the statistics are of the upright picture; "
            "give its path, or turn it: PIL.ImageOps.exif_transpose"
        )
    if picture.size != (record.height, record.width):
        raise UsageError(
            f"{picture.name} is {picture.size} (H, W), but the statistics are of {record.height, record.width}; it has "
            "been changed since, or is not upright: compute them again"
        )


def _check_camera(picture: Picture, record: PictureRecord, camera: Camera | None) -> None:
    """Raise :class:`UsageError` if the trainer knows another camera than the one that gave the metres."""
    if camera is None:
        return
    if record.focal is None or abs(record.focal / camera.fx - 1) > _FOCAL_TOLERANCE:
        there = "the depth model's assumed camera" if record.focal is None else f"fx = {record.focal:g}"
        raise UsageError(
            f"the metres of {picture.name} were computed with {there}, but its camera here has fx = {camera.fx:g} "
            "pixels; compute them with that camera: mvde stats --camera, --fov or columns fx, fy, cx, cy"
        )


def _is_like(found: Placement, expected: Placement) -> bool:
    """Whether two placements of one picture agree within a pixel; the inputs may be of different sizes."""
    scale = [one / other for one, other in zip(found.target_size, expected.target_size, strict=True)]
    target = expected.target_box
    scaled = (target.top * scale[0], target.left * scale[1], target.bottom * scale[0], target.right * scale[1])
    return _differ_by(found.source_box, _edges(expected.source_box), _step(found)) and _differ_by(
        found.target_box, scaled, 1.0
    )


def _step(placement: Placement) -> float:
    """Pixels of the picture for one of the input, at least 1."""
    ratios = zip(placement.source_box.size, placement.target_box.size, strict=True)
    return max(1.0, *(source / target for source, target in ratios))


def _edges(box: Box) -> tuple[float, ...]:
    return box.top, box.left, box.bottom, box.right


def _differ_by(box: Box, edges: tuple[float, ...], most: float) -> bool:
    """Whether each edge of a box is within ``most`` pixels of another's."""
    return all(abs(one - other) <= most for one, other in zip(_edges(box), edges, strict=True))
