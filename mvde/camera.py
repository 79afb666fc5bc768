"""Cameras by their focal length relative to the picture: what a metric model has to know of one.

A picture taken with a longer lens shows everything larger, as if it were nearer; how near it was is not in the picture.
A model is therefore trained for one *canonical* camera, and depth for another one is that depth times the ratio of the
two focal lengths (Metric3D, Yin et al., 2023). Only the focal length relative to the picture's size matters:
``sqrt(fx / W * fy / H)``, which resizing does not change, be it to another aspect.
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
"""Far more than a camera's description takes; a file that is none must not fill the memory."""
_MAX_PIXELS = 1e9
"""Beyond every camera; a number that is none must not become a factor of depth."""


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
            # The principal point of a cropped frame may lie outside of it, on either side.
            low = -_MAX_PIXELS if field.name in ("cx", "cy") else 0
            if not low < value < _MAX_PIXELS:
                raise UsageError(f"{field.name} of a camera lies between {low:g} and {_MAX_PIXELS:g}, but got {value}")

    @property
    def relative_focal(self) -> float:
        """``sqrt(fx / W * fy / H)``."""
        return relative_focal((self.fx, self.fy), (self.height, self.width))


def relative_focal(intrinsics: Sequence[float] | NDArray[np.float32], size: Sequence[int]) -> float:
    """``sqrt(fx / W * fy / H)`` of ``intrinsics`` (fx, fy, cx, cy) in pixels and ``size`` (H, W).

    Raises UsageError where a focal length is not a positive number.
    """
    fx, fy = float(intrinsics[0]), float(intrinsics[1])
    if not (fx > 0 and fy > 0 and math.isfinite(fx * fy)):
        raise UsageError(f"focal lengths must be positive numbers of pixels, but got fx = {fx:g} and fy = {fy:g}")
    return math.sqrt(fx * fy / (size[0] * size[1]))


def camera_factor(focal: float | None, canonical_focal: float | None) -> float:
    """What depth for a camera of relative focal length ``canonical_focal`` is multiplied by for one of ``focal``.

    1 where there is no canonical camera, or where it is not known how this one differs.
    """
    return 1.0 if focal is None or canonical_focal is None else focal / canonical_focal


def focal_from_fov(fov: tuple[float, float]) -> float:
    """Relative focal length of a field of view (horizontal, vertical) in degrees.

    Raises UsageError for angles outside 1 to 170 degrees: no pinhole camera sees more.
    """
    if not all(1.0 <= angle <= 170.0 for angle in fov):
        raise UsageError(f"a field of view lies between 1 and 170 degrees, but got {fov[0]:g} x {fov[1]:g}")
    return 0.5 / math.sqrt(math.prod(math.tan(math.radians(angle) / 2) for angle in fov))


def fov_from_focal(focal: float) -> float:
    """Field of view in degrees, in both directions, of a square picture of this relative focal length."""
    return 2 * math.degrees(math.atan(0.5 / focal))


def parse_fov(text: str) -> tuple[float, float]:
    """Field of view (horizontal, vertical) in degrees from ``"69x42"``, as data sheets of cameras give it.

    Raises UsageError where the text is not two numbers, or an angle is out of range.
    """
    number = r"(\d+(?:\.\d*)?)"
    match = re.fullmatch(rf"\s*{number}\s*[x×]\s*{number}\s*", text)
    if match is None:
        raise UsageError(f"field of view {text!r} is not understood; give HORIZONTALxVERTICAL in degrees, e.g. 69x42")
    fov = float(match[1]), float(match[2])
    focal_from_fov(fov)
    return fov


def parse_camera(text: str, size: tuple[int, int] | None = None) -> Camera:
    """Camera from ``"fx,fy,cx,cy"`` in pixels of a frame of ``size`` (H, W), or from the JSON file of that name.

    Raises UsageError where the text is neither, or the size is missing, or is given beside a file that states it.
    """
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        if len(parts) == 4 and not Path(text).exists():
            raise UsageError(f"camera {text!r} is not understood; give four numbers fx,fy,cx,cy in pixels") from None
        if size is not None:
            raise UsageError(
                f"{text} is a file, which states its frame's width and height; leave --frame out"
            ) from None
        return read_camera(Path(text))
    if len(numbers) != 4:
        raise UsageError(f"camera {text!r} has {len(numbers)} numbers; give four, fx,fy,cx,cy in pixels, or a file")
    if size is None:
        raise UsageError(f"the numbers {text} are pixels of a frame whose size is not known; give --frame HxW too")
    fx, fy, cx, cy = numbers
    return Camera(fx, fy, cx, cy, width=size[1], height=size[0])


def read_camera(path: Path) -> Camera:
    """Camera of a JSON file with the keys fx, fy, cx, cy, width and height, in pixels; other keys are passed over.

    Raises UsageError naming the file and what is wrong with it.
    """
    import json

    keys = [field.name for field in fields(Camera)]
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file; a camera is a JSON object with {', '.join(keys)}")
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise UsageError(f"{path} is larger than {_MAX_FILE_BYTES} bytes and no description of a camera")
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
