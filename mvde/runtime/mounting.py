"""How a camera is mounted over the floor: its height and its angles, for the scale that the floor gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import UsageError
from mvde.runtime.scan_settings import LIMITS, ScanSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Mounting:
    """Height of the camera's centre over the floor in metres, and its angles in degrees.

    ``pitch_deg`` is positive for a camera that looks down, ``roll_deg`` for one whose left side is up: those of
    :class:`mvde.runtime.scan_settings.ScanSettings`, with its limits. Raises :class:`UsageError` for a value that is
    not a number or outside them.
    """

    height_m: float
    pitch_deg: float = 0.0
    roll_deg: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), LIMITS[field.name]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"{field.name} of a mounting must be a number, but got {value!r}")
            if not low <= value <= high:
                raise UsageError(f"{field.name} of a mounting lies between {low:g} and {high:g}, but got {value:g}")
            object.__setattr__(self, field.name, float(value))

    @classmethod
    def from_file(cls, path: str | Path) -> Mounting:
        """Read the mounting of a file of a scan's settings, ``height_m: 0.6`` and the like; the rest is not used.

        Raises :class:`UsageError` naming the file and the problem.
        """
        found = ScanSettings.from_file(path)
        return cls(found.height_m, found.pitch_deg, found.roll_deg)

    @classmethod
    def of_pose(cls, pose: NDArray[np.float64]) -> Mounting | None:
        """Mounting of a camera at ``pose`` (3, 4), world from camera in metres, whose world has z up from its floor.

        ``None`` near the vertical, and at a height that no mounting has.
        """
        tilt, height_m = tilt_of(pose[2, :3]), float(pose[2, 3])
        lowest, highest = LIMITS["height_m"]
        return None if tilt is None or not lowest <= height_m <= highest else cls(height_m, *tilt)

    @classmethod
    def of(cls, given: Mounting | str | Path | None) -> Mounting | None:
        """Mounting as given, or that of a file; ``None`` without any. Raises :class:`UsageError` for anything else."""
        if isinstance(given, (str, Path)):
            return cls.from_file(given)
        if given is not None and not isinstance(given, cls):
            raise UsageError(f"floor is {given!r}: expected a Mounting, or a file of one")
        return given


def tilt_of(up: NDArray[np.float64]) -> tuple[float, float] | None:
    """Pitch and roll in degrees of an optical frame in which up is ``up`` (3,); ``None`` near the vertical."""
    length = float(np.linalg.norm(up))
    if not length > 0 or not math.isfinite(length):
        return None
    x, y, z = (float(one) / length for one in up)
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -z))))
    return (pitch, math.degrees(math.atan2(-x, -y))) if abs(pitch) <= LIMITS["pitch_deg"][1] else None
