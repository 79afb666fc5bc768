"""Camera intrinsics and the relative focal length that metric models depend on.

A longer lens magnifies the scene just as moving closer does, and a single image cannot tell the two apart. A model is
therefore trained for one *canonical* camera; depth for another camera is scaled by the ratio of the focal lengths
(Metric3D, Yin et al., 2023). Only the focal length relative to the image size matters, ``sqrt(fx / W * fy / H)``,
which is invariant to resizing, including changes of aspect ratio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_FILE_BYTES = 1 << 16
"""Size limit of a camera file; far larger than any valid one."""
_MAX_PIXELS = 1e9
"""Sanity limit on intrinsics, so that a bogus number does not scale the depth."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: focal lengths and principal point in pixels of a frame of ``height`` x ``width``."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name in ("width", "height")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "a whole number of pixels" if whole else "a number of pixels"
                raise UsageError(f"{field.name} of a camera must be {kind}, but got {value!r}")
            # The principal point of a cropped frame may lie outside the frame.
            low = -_MAX_PIXELS if field.name in ("cx", "cy") else 0
            if not low < value < _MAX_PIXELS:
                raise UsageError(f"{field.name} of a camera lies between {low:g} and {_MAX_PIXELS:g}, but got {value}")

    @property
    def relative_focal(self) -> float:
        """Relative focal length, ``sqrt(fx / W * fy / H)``."""
        return relative_focal((self.fx, self.fy), (self.height, self.width))


def relative_focal(intrinsics: Sequence[float] | NDArray[np.float32], size: Sequence[int]) -> float:
    """Relative focal length of ``intrinsics`` (fx, fy, cx, cy) in pixels and image ``size`` (H, W).

    Raises UsageError unless both focal lengths are positive and finite.
    """
    fx, fy = float(intrinsics[0]), float(intrinsics[1])
    if not (fx > 0 and fy > 0 and math.isfinite(fx * fy)):
        raise UsageError(f"focal lengths must be positive numbers of pixels, but got fx = {fx:g} and fy = {fy:g}")
    return math.sqrt(fx * fy / (size[0] * size[1]))


def camera_factor(focal: float | None, canonical_focal: float | None) -> float:
    """Depth scale factor from the canonical camera to one of relative focal length ``focal``.

    1 if either focal length is unknown.
    """
    return 1.0 if focal is None or canonical_focal is None else focal / canonical_focal


def focal_from_fov(fov: tuple[float, float]) -> float:
    """Relative focal length of a field of view (horizontal, vertical) in degrees.

    Raises UsageError for angles outside 1 to 170 degrees, the limit of the pinhole model.
    """
    if not all(1.0 <= angle <= 170.0 for angle in fov):
        raise UsageError(f"a field of view lies between 1 and 170 degrees, but got {fov[0]:g} x {fov[1]:g}")
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
    focal_from_fov(fov)
    return fov


def parse_camera(text: str, size: tuple[int, int] | None = None) -> Camera:
    """Parse a camera from ``"fx,fy,cx,cy"`` in pixels and a frame ``size`` (H, W), or read it from a JSON file.

    Raises UsageError if the text is neither, if four numbers come without a size, or if a file comes with one.
    """
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        if len(parts) == 4 and not Path(text).exists():
            raise UsageError(f"camera {text!r} is not understood; give four numbers fx,fy,cx,cy in pixels") from None
        if size is not None:
            raise UsageError(
                f"{text} is a file, which states the frame's width and height; leave --frame out"
            ) from None
        return read_camera(Path(text))
    if len(numbers) != 4:
        raise UsageError(f"camera {text!r} has {len(numbers)} numbers; give four, fx,fy,cx,cy in pixels, or a file")
    if size is None:
        raise UsageError(f"{text} is in pixels of a frame of unknown size; give --frame HxW too")
    fx, fy, cx, cy = numbers
    return Camera(fx, fy, cx, cy, width=size[1], height=size[0])


def read_camera(path: Path) -> Camera:
    """Read a camera from a JSON file with the keys fx, fy, cx, cy, width and height in pixels; others are ignored.

    Raises UsageError naming the file and the problem.
    """
    import json

    keys = [field.name for field in fields(Camera)]
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file; a camera is a JSON object with {', '.join(keys)}")
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than {_MAX_FILE_BYTES} bytes, too large for a camera file")
        plain: Any = json.loads(content)
    except OSError as error:
        raise UsageError(
            f"cannot read the camera {path}: {error.strerror or error}; give a JSON file with {', '.join(keys)}, or "
            "fx,fy,cx,cy"
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not valid JSON: {error}; expected an object with {', '.join(keys)}") from error
    missing = keys if not isinstance(plain, dict) else [key for key in keys if key not in plain]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}; a camera is a JSON object with {', '.join(keys)}")
    try:
        return Camera(**{key: plain[key] for key in keys})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
