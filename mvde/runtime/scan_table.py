"""What a scan takes from camera and mounting alone: bearing, range factor and height factor of every pixel.

The specification of libmvde's tables, bit by bit: coordinates are float64 and need only + - * / and square roots, which
every machine rounds alike; bearings are compared without an arc tangent. Sines, cosines and arc tangents are taken of
single numbers only, with the C library's functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.camera import Camera
from mvde.errors import UsageError
from mvde.runtime.placement import Box
from mvde.runtime.rays import camera_rays
from mvde.runtime.scan_settings import ScanSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RADIANS_PER_DEGREE = math.pi / 180
CELL_SHIFT = 18
"""Bits of a float32 below a cell of the histogram of ranges: 2^5 = 32 cells an octave. A cell's centre is within 1.6 %
of its ranges, and 0.6 % on average, an error far below that of the depth."""


@dataclass(frozen=True)
class ScanTable:
    """Table of a camera and its mounting, for maps of the camera's size.

    ``bearing`` (H, W), int32, is the sector of each pixel, counted counter-clockwise, or -1 for pixels outside the
    frame or without use. A pixel's range is depth * ``range_factor``, its height over the floor
    ``height`` + depth * ``height_factor``, all float32 (H, W) in metres. ``reach_m`` (bearings,), float32, is how far
    ``support`` pixels of a sector see what lies between the heights.

    ``angle_min`` and ``angle_increment`` are in radians; the first is that of the first sector's centre.
    ``range_m`` (cells,), float32, is what is told for each cell of the histogram, whose first is ``first_cell`` of the
    float32's bits without the lowest :data:`CELL_SHIFT`.
    """

    settings: ScanSettings
    bearing: NDArray[np.int32]
    range_factor: NDArray[np.float32]
    height_factor: NDArray[np.float32]
    reach_m: NDArray[np.float32]
    angle_min: float
    angle_increment: float
    support: int
    range_m: NDArray[np.float32]
    first_cell: int

    @property
    def num_bearings(self) -> int:
        """Number of sectors."""
        return len(self.reach_m)


def scan_table(camera: Camera, settings: ScanSettings, box: Box | None = None) -> ScanTable:
    """Compute the table for depth maps of ``camera``, of whose pixels those in ``box`` show the frame (default: all).

    Sectors begin at whole multiples of the increment. Those at either end in which fewer pixels than the support see
    anything between the heights are left out.

    Raises :class:`UsageError` if no sector is left, or one holds fewer pixels than the support: the increment is finer
    than the map.
    """
    box = Box(0, 0, *camera.size) if box is None else box
    right, down = (ray.astype(np.float64) for ray in camera_rays(camera))
    x, y, up = (
        row[0] * right + row[1] * down + row[2] for row in level_rotation(settings.pitch_deg, settings.roll_deg)
    )
    rho = np.sqrt(x * x + y * y)
    exit_m = _exit_ranges(rho, up, settings)
    is_inside = np.zeros(camera.size, bool)
    is_inside[box.slices] = True
    num_sectors = 2 * _half_sectors(settings.increment_deg)
    direction = np.where(is_inside, _sectors(x, y, settings.increment_deg), -1)
    sector = np.where(exit_m > 0, direction, -1)
    support = _support(right, down, box, settings.support_deg2)
    reach = _reach(sector, exit_m, support, num_sectors)
    seeing = np.flatnonzero(reach > settings.range_min_m)
    if not len(seeing):
        raise UsageError(_sees_nothing(settings))
    first, last = int(seeing[0]), int(seeing[-1])
    fewest = int(np.bincount(direction[direction >= 0], minlength=num_sectors)[first : last + 1].min())
    if fewest < support:
        raise UsageError(_too_narrow(settings, fewest, support))
    is_kept = (sector >= first) & (sector <= last)
    step = settings.increment_deg * _RADIANS_PER_DEGREE
    first_cell, ranges = _cells(settings)
    return ScanTable(
        settings,
        np.where(is_kept, sector - first, -1).astype(np.int32),
        rho.astype(np.float32),
        up.astype(np.float32),
        reach[first : last + 1].astype(np.float32),
        (first - _half_sectors(settings.increment_deg) + 0.5) * step,
        step,
        support,
        ranges,
        first_cell,
    )


def level_rotation(pitch_deg: float, roll_deg: float) -> tuple[tuple[float, float, float], ...]:
    """Rows of the rotation from the optical frame (x right, y down, z forward) to the level one (forward, left, up)."""
    pitch, roll = pitch_deg * _RADIANS_PER_DEGREE, roll_deg * _RADIANS_PER_DEGREE
    sp, cp, sr, cr = math.sin(pitch), math.cos(pitch), math.sin(roll), math.cos(roll)
    # Ry(pitch) Rx(roll), applied to (z, -x, -y) of the optical frame.
    return (-(sp * sr), -(sp * cr), cp), (-cr, sr, 0.0), (-(cp * sr), -(cp * cr), -sp)


def _exit_ranges(rho: NDArray[np.float64], up: NDArray[np.float64], settings: ScanSettings) -> NDArray[np.float64]:
    """Range (H, W) at which rays leave the heights of obstacles, at most the largest one; 0 for rays that miss them."""
    low, high = settings.lowest_m - settings.height_m, settings.max_height_m - settings.height_m
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = up / rho
        to_low, to_high = low / slope, high / slope
    enter = np.where(slope > 0, to_low, np.where(slope < 0, to_high, 0.0))
    leave = np.where(slope > 0, to_high, np.where(slope < 0, to_low, math.inf if low < 0 < high else 0.0))
    meets = (rho > 0) & (enter < settings.range_max_m) & (leave > 0)
    return np.where(meets, np.minimum(leave, settings.range_max_m), 0.0)


def _half_sectors(increment_deg: float) -> int:
    """Number of whole sectors between straight ahead and straight behind."""
    return int(180 / increment_deg)


def _sectors(x: NDArray[np.float64], y: NDArray[np.float64], increment_deg: float) -> NDArray[np.intp]:
    """Sector (H, W) of each ray, from behind on the right counter-clockwise; -1 for rays behind or straight down."""
    half = _half_sectors(increment_deg)
    angles = [step * increment_deg * _RADIANS_PER_DEGREE for step in range(-half, half + 1)]
    edges = _turn(np.array([math.cos(angle) for angle in angles]), np.array([math.sin(angle) for angle in angles]))
    found = np.searchsorted(edges, _turn(x, y), side="right") - 1
    sectors: NDArray[np.intp] = np.where((found < 2 * half) & ((x != 0) | (y != 0)), found, -1)
    return sectors


def _turn(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Number from -2 to 2 that grows with the angle of (x, y), from behind on the right counter-clockwise."""
    with np.errstate(invalid="ignore"):
        share = y / (np.abs(x) + np.abs(y))
    turn: NDArray[np.float64] = np.where(x >= 0, share, np.where(y >= 0, 2 - share, -2 - share))
    return turn


def _support(right: NDArray[np.float64], down: NDArray[np.float64], box: Box, support_deg2: float) -> int:
    """Number of pixels of average size that fit into a solid angle, at least one.

    The rays' ``right`` (1, W) and ``down`` (H, 1), or both (H, W), are those of the whole map.
    """
    right, down = (
        np.broadcast_to(one, np.broadcast_shapes(right.shape, down.shape))[box.slices] for one in (right, down)
    )
    (height, width), has_ray = box.size, np.isfinite(right) & np.isfinite(down)
    border = [(0, x) for x in range(width)] + [(y, width - 1) for y in range(1, height)]
    border += [(height - 1, x) for x in range(width - 2, -1, -1)] + [(y, 0) for y in range(height - 2, 0, -1)]
    corners = [(float(right[at]), float(down[at])) for at in border if has_ray[at]]
    steradians = 0.0
    for index, (x, y) in enumerate(corners):
        steradians += _triangle(x, y, *corners[(index + 1) % len(corners)])
    num_pixels = (height - 1) * (width - 1) * (int(has_ray.sum()) / has_ray.size)
    if not steradians:
        return box.size[0] * box.size[1] + 1  # no ray, or a box of one row: no sector has as many
    pixel_deg2 = abs(steradians) / (_RADIANS_PER_DEGREE * _RADIANS_PER_DEGREE) / num_pixels
    return max(1, int(support_deg2 / pixel_deg2))


def _triangle(x: float, y: float, next_x: float, next_y: float) -> float:
    """Signed solid angle between the optical axis and the rays (x, y, 1) and (next_x, next_y, 1).

    Van Oosterom and Strackee, 1983.
    """
    length, next_length = math.sqrt(x * x + y * y + 1), math.sqrt(next_x * next_x + next_y * next_y + 1)
    below = length * next_length + next_length + length + (x * next_x + y * next_y + 1)
    return 2 * math.atan2(x * next_y - y * next_x, below)


def _reach(
    sector: NDArray[np.intp], exit_m: NDArray[np.float64], support: int, num_sectors: int
) -> NDArray[np.float64]:
    """Range (sectors,) that ``support`` rays of each sector reach between the heights; 0 if it has fewer rays."""
    reach = np.zeros(num_sectors)
    used = sector.ravel() >= 0
    sectors, exits = sector.ravel()[used], exit_m.ravel()[used]
    order = np.lexsort((-exits, sectors))
    first = np.searchsorted(sectors[order], np.arange(num_sectors + 1))
    has_enough = first[1:] - first[:-1] >= support
    reach[has_enough] = exits[order][first[:-1][has_enough] + support - 1]
    return reach


def _cells(settings: ScanSettings) -> tuple[int, NDArray[np.float32]]:
    """First cell of the histogram, and the range told for each: its geometric centre, shortened by the margin."""
    bounds = np.array([settings.range_min_m, settings.range_max_m], np.float32)
    first, last = (int(bits) >> CELL_SHIFT for bits in bounds.view(np.int32))
    edges = (np.arange(first, last + 2, dtype=np.int32) << CELL_SHIFT).view(np.float32).astype(np.float64)
    centres = np.sqrt(edges[:-1] * edges[1:]) * math.exp(-settings.margin)
    return first, np.minimum(np.maximum(centres.astype(np.float32), bounds[0]), bounds[1])


def _sees_nothing(settings: ScanSettings) -> str:
    return (
        f"no sector of {settings.increment_deg:g} degrees sees heights of {settings.lowest_m:g} to "
        f"{settings.max_height_m:g} m beyond {settings.range_min_m:g} m: the camera is at {settings.height_m:g} m with "
        f"a pitch of {settings.pitch_deg:g} and a roll of {settings.roll_deg:g} degrees; check these, or lower "
        f"support_deg2, {settings.support_deg2:g} square degrees"
    )


def _too_narrow(settings: ScanSettings, fewest: int, support: int) -> str:
    return (
        f"a sector of {settings.increment_deg:g} degrees holds {fewest} pixels of the network's map, but the support "
        f"of {settings.support_deg2:g} square degrees is {support} pixels: raise increment_deg or lower support_deg2"
    )
