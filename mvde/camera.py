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
from typing import TYPE_CHECKING

from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
