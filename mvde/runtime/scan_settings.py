"""Settings of a scan: how the camera is mounted, and what counts as an obstacle."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mvde.errors import UsageError

_MAX_FILE_BYTES = 1 << 16
"""Size limit of a file of settings; far larger than any valid one."""
_MIN_HEIGHT_SHARE, _MIN_HEIGHT_M = 0.2, 0.05
"""A relative error of depth lifts the floor by that share of the camera's height. On rendered scenes a fixed 0.05 m
called 20 % of the near bearings obstacles that were free, this sum 8 %."""

LIMITS = {
    "height_m": (0.01, 100.0),
    "pitch_deg": (-80.0, 80.0),  # near the vertical, forward has no direction
    "roll_deg": (-180.0, 180.0),
    "min_height_m": (-100.0, 100.0),
    "max_height_m": (-100.0, 100.0),
    "range_min_m": (0.01, 1000.0),
    "range_max_m": (0.01, 1000.0),
    "increment_deg": (0.1, 10.0),
    "support_deg2": (0.001, 100.0),
    "margin": (0.0, 1.0),
}


@dataclass(frozen=True)
class ScanSettings:
    """Mounting of the camera over the floor, and the bounds of obstacles; :meth:`from_file` reads them.

    ``height_m`` is that of the camera's centre over the floor. ``pitch_deg`` is positive for a camera that looks down,
    ``roll_deg`` for one whose left side is up: rotations about the axes y (left) and x (forward) of REP 103.

    Obstacles lie between ``min_height_m`` and ``max_height_m`` over the floor; the lower bound is
    0.2 * ``height_m`` + 0.05 by default, since an error of the depth lifts the floor by its share of the height. Ranges
    are told from ``range_min_m``, where all that is nearer counts, to ``range_max_m``. Bearings are ``increment_deg``
    apart. ``support_deg2`` is the solid angle in square degrees that an obstacle must fill in a bearing's sector, so
    that a speckle is none. ``margin`` tells every range shorter by the factor e^-margin: 0.1 for a careful robot.

    Raises :class:`UsageError` for a value that is not a number or outside its limits.
    """

    height_m: float
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    min_height_m: float | None = None
    max_height_m: float = 1.6
    range_min_m: float = 0.1
    range_max_m: float = 10.0
    increment_deg: float = 0.9
    support_deg2: float = 0.7
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is None and name == "min_height_m":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"{name} of a scan must be a number, but got {value!r}")
            if not low <= value <= high:
                raise UsageError(f"{name} of a scan lies between {low:g} and {high:g}, but got {value:g}")
            object.__setattr__(self, name, float(value))
        _check_order("min_height_m", self.lowest_m, "max_height_m", self.max_height_m)
        _check_order("range_min_m", self.range_min_m, "range_max_m", self.range_max_m)

    @property
    def lowest_m(self) -> float:
        """Lower bound of obstacles over the floor in metres: ``min_height_m``, or its default."""
        if self.min_height_m is not None:
            return self.min_height_m
        return _MIN_HEIGHT_SHARE * self.height_m + _MIN_HEIGHT_M

    @classmethod
    def from_file(cls, path: str | Path) -> ScanSettings:
        """Read a YAML file of one setting a line, such as ``height_m: 0.6``; ``height_m`` has no default.

        Raises :class:`UsageError` naming the file and the problem.
        """
        try:
            return cls(**_parse(_read(path)))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error


def _check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    if not low < high:
        raise UsageError(
            f"{low_name} of a scan is {low:g} and {high_name} {high:g}: expected the first below the second"
        )


def _read(path: str | Path) -> str:
    """Text of a file of settings. Raises :class:`UsageError` for what is no regular file, no text, or too large."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UsageError("is not a file; expected the settings of a scan, such as height_m: 0.6")
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"is larger than {_MAX_FILE_BYTES} bytes, too large for the settings of a scan")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("is not text in UTF-8") from error


def _parse(text: str) -> dict[str, float]:
    """Settings by name. libmvde reads the same grammar: ``name: number`` lines, comments, document marks."""
    names = [field.name for field in dataclasses.fields(ScanSettings)]
    found: dict[str, float] = {}
    for number, line in enumerate(text.split("\n"), 1):
        bare = re.sub(r"(^|[ \t])#.*", "", line.removesuffix("\r")).rstrip(" \t")
        if not bare or bare in ("---", "..."):
            continue
        match = re.fullmatch(r"([a-z_0-9]+)[ \t]*:[ \t]+([^ \t]+)", bare)
        value = _number(match[2]) if match else None
        if match is None or value is None:
            raise UsageError(f"line {number} is {bare[:40]!r}, but expected NAME: NUMBER, such as height_m: 0.6")
        name = match[1]
        if name not in names:
            raise UsageError(f"line {number} sets {name[:40]}, which a scan does not have; it has {', '.join(names)}")
        if name in found:
            raise UsageError(f"line {number} sets {name} again")
        found[name] = value
    if "height_m" not in found:
        raise UsageError("lacks height_m, the height of the camera over the floor in metres")
    return found


def _number(text: str) -> float | None:
    """Finite decimal number, or ``None``."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
