"""A scan in words and as JSON, for a language model or a log: what is near, what is free, and what is not known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import UsageError

if TYPE_CHECKING:
    from mvde.runtime.scan import Scan

_AHEAD_DEG, _SIDE_DEG = 10.0, 30.0
"""Bearings up to which an obstacle is "ahead", and "ahead left" or "ahead right"; beyond it is "left" or "right"."""
_LIMITED = 0.5
"""Share of a direction's bearings that must have been seen for it to be called free."""


@dataclass(frozen=True)
class Direction:
    """What a scan knows of the bearings from ``from_deg`` to ``to_deg``, counter-clockwise from straight ahead.

    ``nearest_m`` is the horizontal distance of the nearest obstacle, at ``nearest_deg``; ``None`` without one.
    ``free_to_m`` is how far all that was seen of it is free: to the nearest obstacle, or as far as the scan reaches;
    ``None`` where nothing was seen. ``unseen`` is the share of its bearings of which nothing is known.
    """

    name: str
    from_deg: float
    to_deg: float
    nearest_m: float | None
    nearest_deg: float | None
    free_to_m: float | None
    unseen: float


@dataclass(frozen=True)
class Description:
    """What lies around the camera, from right to left; ``str()`` says it in sentences, :meth:`to_json` as JSON.

    ``obstacles_m`` are the heights over the floor between which something is an obstacle, ``range_max_m`` is as far as
    the scan tells. ``camera_assumed`` and ``calibrated`` are those of the result.
    """

    directions: tuple[Direction, ...]
    obstacles_m: tuple[float, float]
    range_max_m: float
    camera_assumed: bool
    calibrated: str | None

    @property
    def nearest(self) -> Direction | None:
        """Direction of the nearest obstacle, the one closer to straight ahead of two as near; ``None`` without any."""
        met = [one for one in self.directions if one.nearest_m is not None]
        return min(met, key=lambda one: (one.nearest_m or 0.0, abs(one.nearest_deg or 0.0))) if met else None

    def __str__(self) -> str:
        sentences = [_nearest_sentence(self.nearest)]
        others = [one for one in self.directions if one is not self.nearest]
        sentences += [_direction_sentence(one) for one in others]
        low, high = self.obstacles_m
        sentences.append(
            f"Distances are horizontal, in metres from the camera, of what stands {_metres(low)} to {_metres(high)} "
            "over the floor; nothing is known outside the picture or below and above these heights."
        )
        if self.camera_assumed:
            sentences.append("The camera's focal length is assumed: all distances may be wrong by one factor.")
        return " ".join(sentences)

    def to_json(self) -> str:
        """JSON of the same: lengths in metres, angles in degrees counter-clockwise; null is unknown or none."""
        nearest = self.nearest
        plain = {
            "unit": "m",
            "angles": "degrees, counter-clockwise, 0 is straight ahead",
            "nearest": None if nearest is None else _rounded(asdict(nearest)),
            "directions": [_rounded(asdict(one)) for one in self.directions],
            "obstacles_between_heights_m": [_round(height) for height in self.obstacles_m],
            "range_max_m": _round(self.range_max_m),
            "camera_assumed": self.camera_assumed,
            "metres_from": self.calibrated or "the network",
            "text": str(self),
        }
        return json.dumps(plain)


def describe_scan(scan: Scan, *, camera_assumed: bool = False, calibrated: str | None = None) -> Description:
    """Describe a scan of one frame. Raises :class:`UsageError` for a batch."""
    if scan.ranges.ndim != 1:
        raise UsageError(f"describe() takes the scan of one frame, but got ranges {scan.ranges.shape}")
    bearings_deg = np.degrees(scan.bearings)
    half_deg = math.degrees(scan.angle_increment) / 2
    directions = []
    for name, low, high in _directions():
        inside = np.flatnonzero((bearings_deg >= low) & (bearings_deg < high))
        if len(inside):
            ends = float(bearings_deg[inside[0]] - half_deg), float(bearings_deg[inside[-1]] + half_deg)
            directions.append(_direction(scan, name, ends, slice(int(inside[0]), int(inside[-1]) + 1)))
    settings = scan.settings
    heights = (settings.lowest_m, settings.max_height_m)
    return Description(tuple(directions), heights, scan.range_max, camera_assumed, calibrated)


def _directions() -> list[tuple[str, float, float]]:
    """Name and bounds in degrees of each direction, from behind on the right counter-clockwise."""
    edges = (-math.inf, -_SIDE_DEG, -_AHEAD_DEG, _AHEAD_DEG, _SIDE_DEG, math.inf)
    names = ("right", "ahead right", "ahead", "ahead left", "left")
    return list(zip(names, edges[:-1], edges[1:], strict=True))


def _direction(scan: Scan, name: str, ends: tuple[float, float], inside: slice) -> Direction:
    ranges, bearings, reach = scan.ranges[inside], scan.bearings[inside], scan.reach_m[inside]
    unseen = float(np.isnan(ranges).mean())
    met = np.flatnonzero(np.isfinite(ranges))
    free = np.isposinf(ranges)
    # What is free is known to be so as far as the camera sees between the heights.
    limits = [*ranges[met].tolist(), *np.minimum(reach[free], scan.range_max).tolist()]
    free_to = min(limits) if limits else None
    if not len(met):
        return Direction(name, *ends, None, None, free_to, unseen)
    nearest = int(met[np.lexsort((np.abs(bearings[met]), ranges[met]))[0]])  # ranges of one cell are equal
    return Direction(name, *ends, float(ranges[nearest]), math.degrees(float(bearings[nearest])), free_to, unseen)


def _nearest_sentence(nearest: Direction | None) -> str:
    if nearest is None or nearest.nearest_m is None or nearest.nearest_deg is None:
        return "No obstacle was seen."
    return f"Nearest obstacle {_metres(nearest.nearest_m)} {nearest.name}{_bearing(nearest.nearest_deg)}."


def _direction_sentence(one: Direction) -> str:
    name = one.name[0].upper() + one.name[1:]
    if one.free_to_m is None:
        return f"{name}: unknown."
    partly = "" if one.unseen < _LIMITED else f", but {round(100 * one.unseen)} % of it is unknown"
    if one.nearest_m is None:
        return f"{name}: free to {_metres(one.free_to_m)}{partly}."
    return f"{name}: obstacle at {_metres(one.nearest_m)}{partly}."


def _bearing(degrees: float) -> str:
    """Words for a bearing, such as ``" (12 degrees left)"``."""
    rounded = round(degrees)
    if rounded == 0:
        return ""
    return f" ({abs(rounded)} degrees {'left' if rounded > 0 else 'right'})"


def _metres(value: float) -> str:
    """Length with as many digits as a robot can use: decimetres, centimetres below half a metre."""
    return f"{value:.2f} m" if value < 0.5 else f"{value:.1f} m"


def _round(value: float) -> float:
    return round(value, 3)


def _rounded(plain: dict[str, object]) -> dict[str, object]:
    return {key: _round(value) if isinstance(value, float) else value for key, value in plain.items()}
