"""Rows of ``depth_stats``: statistics of a picture's depth for exactly the patches that a tower sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import UsageError
from mvde.runtime.placement import Box, Placement
from mvde.stats import CONFIDENCE, STATS, depth_to_patch_stats
from mvde.vlm.config import RAYS, check_columns, evidence_column
from mvde.vlm.geometry import Arrangement, Geometry, TracedMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera


@dataclass(frozen=True)
class PictureDepth:
    """Depth of one picture: ``depth`` (H, W) float32 at its size, in the unit of the source; its camera, if known.

    Pixels that are not finite or not above 0 are unknown.
    """

    depth: NDArray[np.float32]
    camera: Camera | None = None


@dataclass(frozen=True)
class PendingDepth:
    """Depth of one picture that is computed inside the model, in the pass of its own tower.

    ``size`` (H, W) is that of the picture, ``factor_of`` gives what metres are multiplied by for its camera from how
    the picture enters the tower. Statistics in the rows are minus this factor for now, which no statistic can be.
    """

    size: tuple[int, int]
    factor_of: Callable[[Placement], float]
    camera: Camera | None = None


@dataclass(frozen=True)
class StoredRows:
    """Statistics of one picture that were computed before, with ``columns`` in this order.

    ``rows_of`` gives the rows (N, S) of each map of the picture of a number in a geometry, in the tower's order; it
    raises :class:`UsageError` where they are of other patches. ``name`` is the picture's, for messages.
    """

    columns: tuple[str, ...]
    rows_of: Callable[[Geometry, int], Sequence[NDArray[np.float32]]]
    name: str
    camera: Camera | None = None


AnyDepth = PictureDepth | PendingDepth | StoredRows | None
"""What is known of a picture's depth."""


def depth_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return ``columns`` as a tuple. Raises :class:`UsageError` for those that depth alone does not give."""
    names = check_columns(columns)
    if CONFIDENCE in names:
        raise UsageError(
            f"the column {CONFIDENCE!r} needs a map of confidence, which depth does not have; choose among "
            f"{', '.join((*STATS, *RAYS))}"
        )
    return names


def depth_rows(geometry: Geometry, depths: Sequence[AnyDepth], columns: Sequence[str]) -> NDArray[np.float32]:
    """Rows of ``depth_stats``, float32, one for each patch that the tower sees, in its order.

    ``depths`` are those of the pictures of the call, ``None`` where there is none. The shape is (tiles, N, S) or
    (images, tiles, N, S) as that of ``pixel_values``, (patches, S) for patches of all pictures in one row, and
    (images, most patches, S) for padded ones. A patch without depth is 0 in every column. ``grad`` is per pixel of the
    tower's input.

    Raises :class:`UsageError` if a viewing ray is asked for and a picture with depth has no camera, and if depth is
    pending for a picture that the tower sees in parts.
    """
    ordered = rows_of_maps(geometry, depths, columns)
    match geometry.arrangement:
        case Arrangement.TILES:
            return np.stack(ordered).reshape(*geometry.shape[:-3], -1, len(columns))
        case Arrangement.CROPPED | Arrangement.FLAT_PATCHES:
            return np.concatenate(ordered)
        case Arrangement.PADDED_PATCHES:
            padded = np.zeros((len(ordered), geometry.num_rows or 0, len(columns)), np.float32)
            for rows, target in zip(ordered, padded, strict=True):
                target[: len(rows)] = rows
            return padded


def rows_of_maps(geometry: Geometry, depths: Sequence[AnyDepth], columns: Sequence[str]) -> list[NDArray[np.float32]]:
    """Rows (N, S) of each map of a geometry, in the tower's order; raises as :func:`depth_rows` does."""
    _check_pending(geometry, depths)
    stored = {
        number: iter(depth.rows_of(geometry, number))
        for number, depth in enumerate(depths)
        if isinstance(depth, StoredRows)
    }
    found = []
    for traced, order in zip(geometry.maps, geometry.orders, strict=True):
        depth = depths[traced.picture] if traced.picture >= 0 else None
        if isinstance(depth, StoredRows):
            found.append(_stored_rows(traced, order, geometry.patch_size, next(stored[traced.picture]), depth, columns))
        else:
            found.append(_map_rows(traced, geometry.patch_size, depth, columns)[order])
    return found


def _stored_rows(
    traced: TracedMap,
    order: NDArray[np.intp],
    patch: int,
    stats: NDArray[np.float32],
    stored: StoredRows,
    columns: Sequence[str],
) -> NDArray[np.float32]:
    """Rows (N, S) of one map from ``stats`` (N, ...) of its patches in the tower's order, with viewing rays."""
    missing = [name for name in columns if name not in (*stored.columns, *RAYS)]
    if missing:
        raise UsageError(
            f"the statistics stored for {stored.name} are {', '.join(stored.columns)}, without {', '.join(missing)}; "
            f"compute them with --stats {','.join([*stored.columns, *missing])}, or train on fewer columns"
        )
    rows = np.zeros((len(stats), len(columns)), np.float32)
    for place, name in enumerate(columns):
        if name not in RAYS:
            rows[:, place] = stats[:, stored.columns.index(name)]
    if set(columns) & set(RAYS):
        known = rows[:, evidence_column(tuple(columns))] > 0
        rays = _rays(traced, (traced.size[0] // patch, traced.size[1] // patch), patch, stored.camera)
        for name, ray in zip(RAYS, rays, strict=True):
            if name in columns:
                rows[:, columns.index(name)] = np.where(known, ray[order], 0)
    return rows


def _check_pending(geometry: Geometry, depths: Sequence[AnyDepth]) -> None:
    """Raise :class:`UsageError` if depth is pending for a picture of which the tower sees several tiles."""
    parts = Counter(traced.picture for traced in geometry.maps)
    for number, depth in enumerate(depths):
        if isinstance(depth, PendingDepth) and (geometry.arrangement is not Arrangement.TILES or parts[number] != 1):
            raise UsageError(
                f"the model sees picture {number} as {parts[number]} {geometry.arrangement.value}, but depth of its "
                "own tower is that of whole pictures; turn tiling off in the processor, or use a DepthRuntime as the "
                "source"
            )


def _map_rows(
    traced: TracedMap, patch: int, found: PictureDepth | PendingDepth | None, columns: Sequence[str]
) -> NDArray[np.float32]:
    """Rows (N, S) of one map in raster order; pixels past the last whole patch are not seen by the tower."""
    grid = traced.size[0] // patch, traced.size[1] // patch
    rows = np.zeros((grid[0] * grid[1], len(columns)), np.float32)
    if found is None:
        return rows
    names = [name for name in columns if name not in RAYS]
    if isinstance(found, PictureDepth):
        depth = traced.sampled(found.depth)[: grid[0] * patch, : grid[1] * patch]
        stats = depth_to_patch_stats(np.ascontiguousarray(depth)[None], patch, [*names, "valid"])[0]
        stats, known = stats[:, :-1], stats[:, -1] > 0
    else:
        known = _shows_picture(traced, grid, patch)
        stats = np.where(known, -np.float32(found.factor_of(placement_of(traced, found.size))), np.float32(0))[:, None]
    rows[:, [columns.index(name) for name in names]] = stats
    if len(names) < len(columns):
        rays = dict(zip(RAYS, _rays(traced, grid, patch, found.camera), strict=True))
        for name in set(columns) & set(RAYS):
            rows[:, columns.index(name)] = np.where(known, rays[name], 0)
    return rows


def _shows_picture(traced: TracedMap, grid: tuple[int, int], patch: int) -> NDArray[np.bool_]:
    """Which patches (N,) show at least one pixel of the picture."""
    down, across = (
        np.asarray((sources[: count * patch].reshape(count, patch) >= 0).any(1))
        for sources, count in ((traced.rows, grid[0]), (traced.columns, grid[1]))
    )
    shows: NDArray[np.bool_] = (down[:, None] & across).reshape(-1)
    return shows


def placement_of(traced: TracedMap, size: tuple[int, int]) -> Placement:
    """How the picture of ``size`` (H, W) enters the tower: the part that is seen, and where."""
    (top, bottom), (first_row, last_row) = _extent(traced.rows, size[0])
    (left, right), (first_column, last_column) = _extent(traced.columns, size[1])
    target = Box(first_row, first_column, last_row, last_column)
    return Placement(size, Box(top, left, bottom, right), traced.size, target)


def _extent(sources: NDArray[np.int32], side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(First, end) of the source pixels that are seen, and of the map's pixels that show them, along one side.

    Nearest-neighbour sampling skips half a step at the ends, which are therefore those of the picture if they are less
    than a step from them.
    """
    shown = np.flatnonzero(sources >= 0)
    start, end = int(shown[0]), int(shown[-1]) + 1
    first, last = int(sources[start]), int(sources[end - 1])
    step = max((last - first) / max(end - start - 1, 1), 1.0)
    before, after = (step - 1) / 2, (step + 1) / 2
    low = 0 if first < step else round(first - before)
    high = side if side - 1 - last < step else round(last + after)
    return (low, max(high, low + 1)), (start, end)


def _rays(
    traced: TracedMap, grid: tuple[int, int], patch: int, camera: Camera | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """X/Z and Y/Z (N,) of the viewing ray through the centre of the part of each patch that shows the picture."""
    if camera is None:
        raise UsageError(
            f"the columns {', '.join(RAYS)} need the camera of each picture; give camera=, or leave these columns out"
        )
    across = _centres(traced.columns[: grid[1] * patch], patch, camera.cx, camera.fx)
    down = _centres(traced.rows[: grid[0] * patch], patch, camera.cy, camera.fy)
    return np.tile(across, grid[0]), np.repeat(down, grid[1])


def _centres(sources: NDArray[np.int32], patch: int, principal: float, focal: float) -> NDArray[np.float32]:
    """Tangent of the angle to the centre of each patch's source pixels along one side; 0 for padding."""
    cut = sources.reshape(-1, patch)
    inside = cut >= 0
    centres = np.where(inside, cut, 0).sum(1) / np.maximum(inside.sum(1), 1)
    return np.where(inside.any(1), (centres - principal) / focal, 0).astype(np.float32)
