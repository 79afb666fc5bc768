"""Reference points: a table of frames, pixels and known depths in metres."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.calibration.fit import FramePoints
from mvde.errors import CalibrationError
from mvde.files import read_small

COLUMNS = ("frame", "x", "y", "metres")
_MAX_BYTES = 16 << 20
_MAX_METRES = 1e4


@dataclass(frozen=True)
class ReferencePoint:
    """Depth in ``metres`` along the optical axis at pixel (``x``, ``y``) of a frame; ``line`` is the table's."""

    x: float
    y: float
    metres: float
    line: int


def read_reference_points(path: Path) -> dict[Path, list[ReferencePoint]]:
    """Read points by frame from a CSV file with the columns frame, x, y, metres; frames are relative to its folder.

    Raises :class:`CalibrationError` naming the line that is malformed.
    """
    header = ",".join(COLUMNS)
    try:
        text = read_small(path, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"cannot read the reference points {path}: {getattr(error, 'strerror', None) or error}; "
            f"expected a CSV file with the columns {header}"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    found: dict[Path, list[ReferencePoint]] = {}
    try:
        first = next(reader, [])
        if tuple(name.strip() for name in first) != COLUMNS:
            raise CalibrationError(f"{path} begins with {','.join(first)[:80]!r}, but expected the line {header}")
        for row in reader:
            if row:
                point = _point(row, f"{path}, line {reader.line_num}", reader.line_num)
                found.setdefault(path.parent / row[0].strip(), []).append(point)
    except csv.Error as error:
        raise CalibrationError(f"{path}, line {reader.line_num}: {error}; expected {header}") from error
    return found


def points_of(name: str, depth: NDArray[np.float32], points: list[ReferencePoint], where: Path) -> FramePoints:
    """Pair the points of a frame with its map (H, W), float32, at the nearest pixels.

    Raises :class:`CalibrationError` for a point outside the frame.
    """
    height, width = depth.shape
    for point in points:
        if not (-0.5 <= point.x < width - 0.5 and -0.5 <= point.y < height - 0.5):
            raise CalibrationError(
                f"{where}, line {point.line}: pixel x {point.x:g}, y {point.y:g} is outside {name}, which has "
                f"{width} columns and {height} rows; x is the column and y the row, both from 0"
            )
    rows = [math.floor(point.y + 0.5) for point in points]
    columns = [math.floor(point.x + 0.5) for point in points]
    values = depth[rows, columns].astype(np.float64)
    return FramePoints(name, values, np.array([point.metres for point in points]))


def _point(row: list[str], where: str, line: int) -> ReferencePoint:
    if len(row) != len(COLUMNS) or not row[0].strip():
        raise CalibrationError(f"{where}: got {','.join(row)[:80]!r}, but expected {','.join(COLUMNS)}")
    numbers = []
    for name, text in zip(COLUMNS[1:], row[1:], strict=True):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise CalibrationError(f"{where}: {name} is {text[:40]!r}, but expected a number")
        numbers.append(number)
    x, y, metres = numbers
    if not 0 < metres <= _MAX_METRES:
        raise CalibrationError(f"{where}: metres is {metres:g}, but expected more than 0 and at most {_MAX_METRES:g}")
    return ReferencePoint(x, y, metres, line)
