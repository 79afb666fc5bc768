"""ROS camera calibrations: the YAML of ``camera_calibration`` and ``camera_info_manager``.

The robot side has no YAML library, and the files have a small grammar: nested mappings, lists of numbers in brackets or
with dashes, comments. Anchors, quotes with escapes and block scalars are refused by what they leave out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from mvde.distortion import Distortion, DistortionModel
from mvde.errors import UsageError

_KEYS = ("image_width", "image_height", "camera_matrix")
_Line = tuple[int, str]


@dataclass(frozen=True)
class Calibration:
    """Intrinsics (fx, fy, cx, cy) in pixels of a frame of ``size`` (H, W), and the distortion if there is any."""

    intrinsics: tuple[float, float, float, float]
    size: tuple[int, int]
    distortion: Distortion | None


def parse_calibration(text: str) -> Calibration:
    """Parse a calibration.

    Raises :class:`UsageError` for a key that is missing or malformed, and for distortion of a model that mvde does not
    know, with the command that rectifies frames.
    """
    plain = _parse_yaml(text)
    missing = [key for key in _KEYS if key not in plain]
    if missing:
        raise UsageError(
            f"lacks {', '.join(missing)}; a ROS calibration has {', '.join(_KEYS)}, distortion_model and "
            "distortion_coefficients"
        )
    matrix = _numbers(plain, "camera_matrix", 9)
    fx, skew, cx, zero, fy, cy, *last = matrix
    if skew != 0 or zero != 0 or last != [0, 0, 1]:
        raise UsageError(f"camera_matrix is {matrix}, but expected [fx, 0, cx, 0, fy, cy, 0, 0, 1]")
    return Calibration((fx, fy, cx, cy), (plain["image_height"], plain["image_width"]), _distortion(plain))


def _distortion(plain: dict[str, Any]) -> Distortion | None:
    """Distortion of the lens; ``None`` if all coefficients are 0 or there are none."""
    if "distortion_coefficients" not in plain:
        return None
    coefficients = _numbers(plain, "distortion_coefficients", None)
    try:
        return Distortion.of(plain.get("distortion_model", "some"), coefficients)
    except UsageError as error:
        raise UsageError(_rectify(plain, coefficients)) from error


def _rectify(plain: dict[str, Any], coefficients: list[float]) -> str:
    """What to do about distortion that mvde does not know."""
    rectified = "the camera of the rectified frames"
    if "projection_matrix" in plain:
        fx, _, cx, _, _, fy, cy, *_ = _numbers(plain, "projection_matrix", 12)
        rectified = f"--camera {fx:g},{fy:g},{cx:g},{cy:g}, the projection_matrix,"
    model = plain.get("distortion_model", "some")
    known = ", ".join(DistortionModel)
    return (
        f"the lens has {model} distortion ({coefficients}), but mvde knows {known}; rectify the frames, with "
        f"`ros2 run image_proc rectify_node` or cv2.undistort, and give {rectified} for them"
    )


def _numbers(plain: dict[str, Any], key: str, count: int | None) -> list[float]:
    """Finite numbers of a matrix, ``data`` beside ``rows`` and ``cols``, or a bare list."""
    value = plain[key]
    data = value.get("data") if isinstance(value, dict) else value
    items: list[Any] = data if isinstance(data, list) else [data]
    are_numbers = all(isinstance(item, (int, float)) and math.isfinite(item) for item in items)
    if not are_numbers or (count is not None and len(items) != count):
        raise UsageError(f"{key} must have data: [{count if count is not None else 'some'} numbers], but got {data!r}")
    return [float(item) for item in items]


def _parse_yaml(text: str) -> dict[str, Any]:
    lines: list[_Line] = []
    for line in text.splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if bare.strip() and not bare.startswith(("---", "...", "%")):
            if "\t" in bare[: len(bare) - len(bare.lstrip())]:
                raise UsageError("is not YAML: a line is indented with tabs")
            lines.append((len(bare) - len(bare.lstrip()), bare.strip()))
    found, rest = _mapping(lines, 0) if lines else ({}, 0)
    if rest != len(lines):
        raise UsageError(f"is not YAML of a ROS calibration: {lines[rest][1]!r} is out of place")
    return found


def _mapping(lines: list[_Line], start: int) -> tuple[dict[str, Any], int]:
    """Mapping whose first line is ``start``, and the index of the line after it."""
    found: dict[str, Any] = {}
    indent, index = lines[start][0], start
    while index < len(lines) and lines[index][0] == indent and (match := _key_of(lines[index][1])):
        key, value = match
        index += 1
        if key in found:
            raise UsageError(f"has {key} twice")
        if value.startswith("["):
            found[key], index = _bracketed(value, lines, index)
        elif value and not value.startswith("!"):  # OpenCV writes a tag, and the matrix below it
            found[key] = _scalar(value)
        else:
            found[key], index = _block(lines, index, indent)
    return found, index


def _block(lines: list[_Line], start: int, indent: int) -> tuple[Any, int]:
    """Value below a key of that indentation: a mapping, a list of scalars, or ``None`` without any."""
    if start == len(lines) or lines[start][0] < indent:
        return None, start
    own, first = lines[start]
    if first.startswith("- "):
        end = start
        while end < len(lines) and lines[end][0] == own and lines[end][1].startswith("- "):
            end += 1
        return [_scalar(line[2:].strip()) for _, line in lines[start:end]], end
    return (None, start) if own == indent else _mapping(lines, start)


def _bracketed(value: str, lines: list[_Line], index: int) -> tuple[list[Any], int]:
    """List in brackets that begins with ``value`` and may go on over lines, and the index of the line after it."""
    while "]" not in value and index < len(lines):
        value, index = f"{value} {lines[index][1]}", index + 1
    inner, closing, rest = value[1:].partition("]")
    if not closing or rest.strip():
        raise UsageError(f"is not YAML of a ROS calibration: the list {value[:40]!r} is not closed")
    items = inner.strip().removesuffix(",")
    return [_scalar(item.strip()) for item in items.split(",")] if items else [], index


def _key_of(line: str) -> tuple[str, str] | None:
    match = re.fullmatch(r"([A-Za-z_]\w*)\s*:(?:\s+(.*))?", line)
    return None if match is None else (match[1], (match[2] or "").strip())


def _scalar(text: str) -> int | float | str:
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text.strip("'\"")
