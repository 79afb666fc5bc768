"""Distances by bearing: of the depth of a frame, the nearest obstacle in each direction, shaped like a LaserScan.

:func:`numpy_scan` is the specification; libmvde gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import UsageError
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import CELL_SHIFT, ScanTable

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scan:
    """Distances by bearing in a level frame at the camera's centre: x forward, y left, z up (REP 103).

    ``ranges`` is (bearings,), float32, horizontal distances in metres: +inf where no obstacle is within ``range_max``,
    NaN where too little was seen (REP 117). The bearing of element i is ``angle_min`` + i * ``angle_increment``,
    radians, counter-clockwise. These fields are those of a ROS LaserScan, in its units.

    ``reach_m`` (bearings,), float32, is how far the camera sees between the heights of obstacles: what is free is known
    to be free up to there only. ``settings`` are those it was made with; for a batch, ``ranges`` is (B, bearings).
    """

    ranges: NDArray[np.float32]
    angle_min: float
    angle_increment: float
    range_min: float
    range_max: float
    reach_m: NDArray[np.float32]
    settings: ScanSettings

    @property
    def angle_max(self) -> float:
        """Bearing of the last element, radians."""
        return float(self.bearings[-1])

    @property
    def bearings(self) -> NDArray[np.float64]:
        """Bearing (bearings,) of each element, radians, counter-clockwise from straight ahead."""
        return self.angle_min + np.arange(self.ranges.shape[-1], dtype=np.float64) * self.angle_increment

    @property
    def rotation(self) -> tuple[float, float, float, float]:
        """Quaternion (x, y, z, w) of the static transform from the camera's optical frame to its child, the scan's.

        The translation is 0: the scan's origin is the camera's centre, ``settings.height_m`` over the floor.
        """
        half_pitch, half_roll = (math.radians(angle) / 2 for angle in (self.settings.pitch_deg, self.settings.roll_deg))
        (sp, cp), (sr, cr) = ((math.sin(half), math.cos(half)) for half in (half_pitch, half_roll))
        x, y, z, w = cp * sr, sp * cr, -sp * sr, cp * cr  # of the camera's body in the level frame
        # The inverse of that times (-1/2, 1/2, -1/2, 1/2), the optical frame in the body.
        return (w - x + y + z) / 2, (-w - x - y + z) / 2, (w - x - y - z) / 2, (w + x - y + z) / 2

    @property
    def points(self) -> NDArray[np.float32]:
        """Obstacles (bearings, 2), float32, as x and y in metres; not finite where ``ranges`` is not."""
        with np.errstate(invalid="ignore"):
            return np.stack([self.ranges * np.cos(self.bearings), self.ranges * np.sin(self.bearings)], -1).astype(
                np.float32
            )


def numpy_scan(depth: NDArray[np.float32], table: ScanTable) -> NDArray[np.float32]:
    """Scan (bearings,) of a depth map (H, W), float32 metres: the specification.

    A pixel has depth if its value is above 0; +inf is sky. It is an obstacle if its height is between those of the
    settings and its range at most the largest one; ranges below the smallest count as that. For each sector the ranges
    of obstacles are counted in cells of a 32nd of an octave, and the range told is the centre of the first cell up to
    which there are ``support`` of them. Without such a cell it is +inf if at least ``support`` of the sector's pixels,
    and half of them, have depth, else NaN.

    Raises :class:`UsageError` for a map of another size.
    """
    if depth.shape != table.bearing.shape or depth.dtype != np.float32:
        raise UsageError(f"depth is {depth.dtype} {depth.shape}: expected float32 {table.bearing.shape}")
    settings, num_cells = table.settings, len(table.range_m)
    with np.errstate(invalid="ignore", over="ignore"):
        ranges = depth * table.range_factor
        height = np.float32(settings.height_m) + depth * table.height_factor
        has_depth = depth > 0
        is_between = (height > np.float32(settings.lowest_m)) & (height < np.float32(settings.max_height_m))
        is_between &= ranges <= np.float32(settings.range_max_m)
    cell = np.maximum((np.ascontiguousarray(ranges).view(np.int32) >> CELL_SHIFT) - table.first_cell, 0)
    is_obstacle = has_depth & is_between & (table.bearing >= 0)
    counts = np.bincount((table.bearing * num_cells + cell)[is_obstacle], minlength=table.num_bearings * num_cells)
    is_enough = counts.reshape(table.num_bearings, num_cells).cumsum(axis=1) >= table.support
    num_seen, num_all = (
        np.bincount(table.bearing[used & (table.bearing >= 0)], minlength=table.num_bearings)
        for used in (has_depth, np.ones_like(has_depth))
    )
    is_free = (num_seen >= table.support) & (2 * num_seen >= num_all)
    otherwise = np.where(is_free, np.float32(math.inf), np.float32(math.nan))
    return np.where(is_enough.any(axis=1), table.range_m[is_enough.argmax(axis=1)], otherwise)


def scan_of(ranges: NDArray[np.float32], table: ScanTable) -> Scan:
    """Scan of a frame whose ``ranges`` (bearings,) were computed with ``table``."""
    settings = table.settings
    angles = (table.angle_min, table.angle_increment)
    return Scan(ranges, *angles, settings.range_min_m, settings.range_max_m, table.reach_m, settings)
