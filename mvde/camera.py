"""Camera intrinsics: the frame's camera, what becomes of it on the way into a network, and its focal length.

A longer lens magnifies the scene just as moving closer does, and a single image cannot tell the two apart. A model is
therefore trained for one *canonical* camera; depth for another camera is scaled by the ratio of the focal lengths
(Metric3D, Yin et al., 2023). Which focal length that is, :class:`~mvde.contract.FocalConvention` says; mvde's own
models use ``sqrt(fx / W * fy / H)``, which is invariant to resizing, including changes of aspect ratio.

Pixel centres have integer coordinates, as in OpenCV and ROS: the left edge of a frame is at -0.5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.calibration_yaml import parse_calibration
from mvde.contract import FocalConvention
from mvde.distortion import Distortion
from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_FILE_BYTES = 1 << 16
"""Size limit of a camera file; far larger than any valid one."""
_MAX_PIXELS = 1e9
"""Sanity limit on intrinsics, so that a bogus number does not scale the depth."""
_FOV_DEGREES = (1.0, 170.0)
"""Range of a field of view, the limit of the pinhole model."""
_JSON_KEYS = ("fx", "fy", "cx", "cy", "width", "height")
_YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Camera:
    """A camera: focal lengths and principal point in pixels of a frame of ``size`` (H, W), and the lens's distortion.

    ``distortion`` is ``None`` for rectified frames. Depth is along the optical axis and does not depend on it; points
    and scans, which need each pixel's ray, do.

    Raises :class:`UsageError` for a focal length or a side that is not positive and finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    size: tuple[int, int]
    distortion: Distortion | None = None

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy"):
            # The principal point of a cropped frame may lie outside the frame.
            _check_number(name, getattr(self, name), -_MAX_PIXELS if name.startswith("c") else 0, float)
        if not isinstance(self.size, Sequence) or isinstance(self.size, str) or len(self.size) != 2:
            raise UsageError(f"the size of a camera is (height, width) in pixels, but got {self.size!r}")
        object.__setattr__(self, "size", tuple(self.size))
        for name, side in zip(("height", "width"), self.size, strict=True):
            _check_number(name, side, 0, int)
        if not isinstance(self.distortion, (Distortion, type(None))):
            raise UsageError(f"the distortion of a camera is a Distortion or None, but got {self.distortion!r}")

    @classmethod
    def from_fov(cls, horizontal_deg: float | None, vertical_deg: float | None, size: tuple[int, int]) -> Camera:
        """Camera of a field of view in degrees and frames of ``size`` (H, W), centred.

        One of the angles may be ``None``: pixels are then square. Raises :class:`UsageError` for angles outside 1 to
        170 degrees.
        """
        angles = [angle for angle in (horizontal_deg, vertical_deg) if angle is not None]
        if not angles:
            raise UsageError("a field of view needs one angle or two, in degrees, but got none")
        _check_fov(angles)
        height, width = size
        fx = None if horizontal_deg is None else _focal_of_angle(horizontal_deg, width)
        fy = None if vertical_deg is None else _focal_of_angle(vertical_deg, height)
        fx, fy = fx if fx is not None else fy, fy if fy is not None else fx
        assert fx is not None
        assert fy is not None
        return cls(fx, fy, (width - 1) / 2, (height - 1) / 2, size)

    @classmethod
    def from_file(cls, path: str | Path) -> Camera:
        """Read a ROS camera calibration (``.yaml``, ``.yml``), or JSON with fx, fy, cx, cy, width and height.

        JSON may have distortion_model and distortion_coefficients too. Raises :class:`UsageError` naming the file and
        the problem, also for a lens whose distortion is of another model than :class:`DistortionModel`'s.
        """
        path = Path(path)
        return _read_calibration(path) if path.suffix.lower() in _YAML_SUFFIXES else _read_json(path)

    @property
    def relative_focal(self) -> float:
        """Relative focal length, ``sqrt(fx / W * fy / H)``."""
        return relative_focal((self.fx, self.fy), self.size)

    def focal(self, convention: FocalConvention) -> float:
        """Focal length as one number; this camera must be that of the network's input, see :meth:`cropped`."""
        match convention:
            case FocalConvention.GEOMETRIC:
                return self.relative_focal
            case FocalConvention.HORIZONTAL:
                return self.fx / self.size[1]
            case FocalConvention.PIXELS:
                return (self.fx + self.fy) / 2

    def cropped(self, top: int, left: int, size: tuple[int, int]) -> Camera:
        """Camera of the part of the frame that begins at (``top``, ``left``); negative values pad the frame."""
        return Camera(self.fx, self.fy, self.cx - left, self.cy - top, size, self.distortion)

    def scaled(self, size: tuple[int, int]) -> Camera:
        """Camera of the frame resized to ``size`` (H, W)."""
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        cx, cy = (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5
        return Camera(self.fx * across, self.fy * down, cx, cy, size, self.distortion)

    def check_frame(self, size: tuple[int, int]) -> None:
        """Raise :class:`UsageError` unless a frame of ``size`` (H, W) is of this camera's size."""
        if tuple(size) != self.size:
            (height, width), (own_height, own_width) = size, self.size
            raise UsageError(
                f"the camera is of frames of {own_height}x{own_width}, but this frame is {height}x{width}; give the "
                "camera of this frame (Camera.scaled for a resized one, Camera.cropped for a part of it)"
            )


def relative_focal(intrinsics: Sequence[float] | NDArray[np.float32], size: Sequence[int]) -> float:
    """Relative focal length of ``intrinsics`` (fx, fy, cx, cy) in pixels and image ``size`` (H, W).

    Raises UsageError unless both focal lengths are positive and finite.
    """
    fx, fy = float(intrinsics[0]), float(intrinsics[1])
    if not (fx > 0 and fy > 0 and math.isfinite(fx * fy)):
        raise UsageError(f"focal lengths must be positive numbers of pixels, but got fx = {fx:g} and fy = {fy:g}")
    return math.sqrt(fx * fy / (size[0] * size[1]))


def focal_from_fov(fov: tuple[float, float]) -> float:
    """Relative focal length of a field of view (horizontal, vertical) in degrees.

    Raises UsageError for angles outside 1 to 170 degrees, the limit of the pinhole model.
    """
    _check_fov(fov)
    return 0.5 / math.sqrt(math.prod(math.tan(math.radians(angle) / 2) for angle in fov))


def fov_from_focal(focal: float) -> float:
    """Field of view in degrees, in both directions, of a square image with this relative focal length."""
    return 2 * math.degrees(math.atan(0.5 / focal))


def parse_fov(text: str) -> tuple[float, float]:
    """Parse a field of view (horizontal, vertical) in degrees from data-sheet notation, e.g. ``"69x42"``.

    Raises UsageError unless the text is two numbers and both angles are in range.
    """
    number = r"(\d+(?:\.\d*)?)"
    match = re.fullmatch(rf"\s*{number}\s*[x×]\s*{number}\s*", text)
    if match is None:
        raise UsageError(f"field of view {text!r} is not understood; give HORIZONTALxVERTICAL in degrees, e.g. 69x42")
    fov = float(match[1]), float(match[2])
    _check_fov(fov)
    return fov


def parse_camera(text: str, size: tuple[int, int] | None = None) -> Camera:
    """Parse a camera from ``"fx,fy,cx,cy"`` in pixels and a frame ``size`` (H, W), or read it from a file.

    Raises UsageError if the text is neither, if four numbers come without a size, or if a file comes with one.
    """
    numbers = parse_intrinsics(text)
    if numbers is None:
        if size is not None:
            raise UsageError(f"{text} is a file, which states the frame's width and height; leave --frame out")
        return Camera.from_file(text)
    if size is None:
        raise UsageError(f"{text} is in pixels of a frame of unknown size; give --frame HxW too")
    return Camera(*numbers, size=size)


def parse_intrinsics(text: str) -> tuple[float, float, float, float] | None:
    """Parse ``"fx,fy,cx,cy"``; ``None`` for a text that can only be the name of a file.

    Raises UsageError for another number of numbers.
    """
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        if len(parts) == 4 and not Path(text).exists():
            raise UsageError(f"camera {text!r} is not understood; give four numbers fx,fy,cx,cy in pixels") from None
        return None
    if len(numbers) != 4:
        raise UsageError(f"camera {text!r} has {len(numbers)} numbers; give four, fx,fy,cx,cy in pixels, or a file")
    fx, fy, cx, cy = numbers
    return fx, fy, cx, cy


def _check_number(name: str, value: object, low: float, kind: type) -> None:
    """Raise :class:`UsageError` unless ``value`` is a number of that kind, above ``low`` and of a sane size."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        wanted = "a whole number of pixels" if kind is int else "a number of pixels"
        raise UsageError(f"{name} of a camera must be {wanted}, but got {value!r}")
    if not low < value < _MAX_PIXELS:
        raise UsageError(f"{name} of a camera lies between {low:g} and {_MAX_PIXELS:g}, but got {value}")


def _check_fov(angles: Sequence[float]) -> None:
    low, high = _FOV_DEGREES
    if not all(low <= angle <= high for angle in angles):
        got = " x ".join(f"{angle:g}" for angle in angles)
        raise UsageError(f"a field of view lies between {low:g} and {high:g} degrees, but got {got}")


def _focal_of_angle(angle_deg: float, side: int) -> float:
    """Focal length in pixels of a field of view over ``side`` pixels."""
    return side / 2 / math.tan(math.radians(angle_deg) / 2)


def _read_json(path: Path) -> Camera:
    """Camera of a JSON file; other keys are ignored. Raises UsageError naming the file and the problem."""
    import json

    keys = ", ".join(_JSON_KEYS)
    content = _read_bytes(path)
    try:
        plain: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}; expected an object with {keys}") from error
    missing = _JSON_KEYS if not isinstance(plain, dict) else [key for key in _JSON_KEYS if key not in plain]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}; a camera is a JSON object with {keys}")
    fx, fy, cx, cy, width, height = (plain[key] for key in _JSON_KEYS)
    try:
        return Camera(fx, fy, cx, cy, (height, width), _distortion_of_json(plain))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _distortion_of_json(plain: dict[str, Any]) -> Distortion | None:
    if "distortion_model" not in plain:
        return None
    model, coefficients = plain["distortion_model"], plain.get("distortion_coefficients")
    if not isinstance(coefficients, list) or not all(isinstance(value, (int, float)) for value in coefficients):
        raise UsageError(f"distortion_coefficients must be a list of numbers, but got {coefficients!r}")
    return Distortion.of(model, coefficients)


def _read_calibration(path: Path) -> Camera:
    """Camera of a ROS calibration. Raises UsageError naming the file and the problem."""
    content = _read_bytes(path)
    try:
        found = parse_calibration(content.decode("utf-8"))
        return Camera(*found.intrinsics, found.size, found.distortion)
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a ROS camera calibration: it is no text, or nested too deeply") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _read_bytes(path: Path) -> bytes:
    """Content of a camera file. Raises UsageError for what is no regular file, or too large."""
    forms = f"a ROS calibration (.yaml) or JSON with {', '.join(_JSON_KEYS)}"
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file; a camera is {forms}")
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the camera {path}: {error.strerror or error}; give {forms}, or fx,fy,cx,cy"
        ) from error
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_FILE_BYTES} bytes, too large for a camera file")
    return content
