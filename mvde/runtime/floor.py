"""Scale of a frame's depth from the floor it sees: the specification of libmvde's ``mvde_floor_scale``.

A ray that falls by ``d`` metres for each metre of depth meets the floor at depth ``height / d``. Over a pixel's own
depth that is the factor which brings the pixel to the floor: the same number for all pixels of the floor, and a larger
one for whatever stands on it. The factor that most rays share, near 1, is the frame's scale.

Factors are counted in cells of the float32's bits, weighed and compared as whole numbers and float64 by operations that
IEEE 754 fixes, so that C++ gives equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mvde.runtime.picture_motion import ordered_sum
from mvde.runtime.points import numpy_rays
from mvde.runtime.scan_table import level_rotation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.runtime.mounting import Mounting
    from mvde.runtime.placement import Box

CELL_SHIFT = 13
"""Bits of a float32 below a cell: 1024 cells an octave, each at most a thousandth of its factor wide."""
NUM_CELLS = 2048
"""Factors from 1/2 to 2: a network that is further off does not know this kind of camera or scene."""
LEAST_FALL = 0.12
"""Metres per metre of depth that a ray which counts falls at least: 7 degrees. Nearer to the horizon, an error of the
pitch is all that one sees."""
HALF_WIDTH = 0.06
"""Relative half-width of the window whose factors count as one."""
PRIOR_WIDTH = 0.2
"""Relative change of scale at which a window counts half as much: twice the error of the shipped network's scale."""
LEAST_SEEN = 0.05
"""Share of the picture whose rays look down."""
LEAST_SHARE = 0.25
"""Share of these rays in the window. On 144 frames of clips that no table is of (``mvde data synth --video --count 18
--clip-frames 8 --seed 21``) no scale was made much worse from 0.2 on, and 6 % of them were at 0.15."""
SPREAD_WIDTH = 0.25
"""Relative half-width in which the residual is taken; factors without a floor have one of 0.12 there."""
MOST_RESIDUAL = 0.06
"""On those frames nine in ten floors are flatter; two degrees of pitch too little put a third above it."""
MOST_BELOW = 0.02
"""Share of these rays that may lie below the floor, by more than the width of the residual: a table has the floor below
it. On 288 frames of clips that no table is of (``--count 36 --clip-frames 48 --seed 21``, every sixth) it was at most
0.003, and 0.012 with two degrees of pitch too much."""


class FloorStatus(str, Enum):
    """What the floor gave a frame."""

    USED = "used"
    """The frame's own scale."""
    HELD = "held"
    """The scale of the frames that its steady depth goes back to: it shows none itself."""
    UNSEEN = "unseen"
    """None: too few rays meet at the floor."""
    UNEVEN = "uneven"
    """None: they meet too loosely, or something lies below, as below a table."""
    UNKNOWN = "unknown"
    """None: the mounting of this frame is not known."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class FloorScale:
    """Scale of a frame's depth by the floor.

    ``scale`` is what depth was multiplied by, 1 where it was left as it is. ``share`` is that of the rays that meet at
    the floor, of those that look down; ``residual`` is the mean relative distance of factors around the scale from it.
    """

    status: FloorStatus
    scale: float = 1.0
    share: float = 0.0
    residual: float = 0.0


def floor_text(counts: Mapping[FloorStatus, int]) -> str:
    """What the floor gave so many frames, as text; empty for none."""
    num_frames = sum(counts.values())
    if not num_frames:
        return ""
    words = {
        FloorStatus.HELD: "held that of frames before",
        FloorStatus.UNSEEN: "showed none",
        FloorStatus.UNEVEN: "showed none that is flat",
        FloorStatus.UNKNOWN: "had no known mounting",
    }
    parts = [f"{counts[status]} {text}" for status, text in words.items() if counts.get(status)]
    used = f"scale from the floor in {counts.get(FloorStatus.USED, 0)} of {num_frames} frames"
    return ", ".join([used, *parts])


def floor_falls(camera: Camera, mounting: Mounting) -> NDArray[np.float32]:
    """Metres (H, W), float32, that each pixel's ray falls per metre of depth; NaN where the lens has no ray.

    ``camera`` is that of the map.
    """
    right, down = (ray.astype(np.float64) for ray in numpy_rays(camera))
    row = level_rotation(mounting.pitch_deg, mounting.roll_deg)[2]
    up: NDArray[np.float64] = row[0] * right + row[1] * down + row[2]
    return (-up).astype(np.float32)


def floor_scale(depth_m: NDArray[np.float32], falls: NDArray[np.float32], height_m: float, box: Box) -> FloorScale:
    """Scale by the floor of a depth map (H, W), float32 metres, whose rays fall by ``falls`` (H, W).

    Pixels outside ``box`` are not looked at, nor those without depth or with the sky's, +inf.
    """
    depth, fall = depth_m[box.slices], falls[box.slices]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        looks_down = (fall >= np.float32(LEAST_FALL)) & (depth > 0) & (depth < np.float32(math.inf))
        factor = np.float32(height_m) / (fall * depth)
    cell = (factor[looks_down].view(np.int32) >> CELL_SHIFT) - _FIRST_CELL
    counts = np.bincount(np.maximum(cell[cell < NUM_CELLS], -1) + 1, minlength=NUM_CELLS + 1)
    return _scale_of(np.cumsum(counts), len(cell), fall.size)


def _scale_of(upto: NDArray[np.int64], num_rays: int, num_pixels: int) -> FloorScale:
    """Scale from the number of factors below each edge of a cell, of ``num_rays`` in all."""
    windows = _windows()
    inside = upto[windows.last] - upto[windows.first]
    best = int(np.argmax(inside * windows.weight))
    num_floor = int(inside[best])
    share = num_floor / num_rays if num_rays else 0.0
    if num_rays < LEAST_SEEN * num_pixels or num_floor < LEAST_SHARE * num_rays:
        return FloorScale(FloorStatus.UNSEEN, share=share)
    half = int(upto[windows.first[best]]) + (num_floor + 1) // 2
    scale = float(windows.centre[int(np.searchsorted(upto, half)) - 1])
    lowest, highest = np.searchsorted(windows.centre, [scale * (1 - SPREAD_WIDTH), scale * (1 + SPREAD_WIDTH)])
    counts = (upto[lowest + 1 : highest + 1] - upto[lowest:highest]).astype(np.float64)
    away = np.abs(windows.centre[lowest:highest] / scale - 1)
    residual = float(ordered_sum(counts * away)) / int(upto[highest] - upto[lowest])
    if residual > MOST_RESIDUAL or upto[lowest] > MOST_BELOW * num_rays:
        return FloorScale(FloorStatus.UNEVEN, share=share, residual=residual)
    return FloorScale(FloorStatus.USED, scale, share, residual)


_FIRST_CELL = int(np.float32(0.5).view(np.int32)) >> CELL_SHIFT


@dataclass(frozen=True)
class _Windows:
    """Of each cell (cells,): its centre, first and one past the last cell of the window around it, and its weight."""

    centre: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    weight: NDArray[np.int64]


@lru_cache(maxsize=1)
def _windows() -> _Windows:
    cells = np.arange(_FIRST_CELL, _FIRST_CELL + NUM_CELLS + 1, dtype=np.int32)
    edges = (cells << CELL_SHIFT).view(np.float32).astype(np.float64)
    centre = (edges[:-1] + edges[1:]) / 2
    first = np.searchsorted(centre, centre * (1 - HALF_WIDTH))
    last = np.searchsorted(centre, centre * (1 + HALF_WIDTH))
    change = (centre - 1 / centre) / (2 * PRIOR_WIDTH)
    weight = np.floor(65536 / (1 + change * change)).astype(np.int64)
    return _Windows(centre, first, last, weight)
