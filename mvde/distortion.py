"""Lens distortion: the models of ROS (``sensor_msgs/CameraInfo``) that points and scans can undo.

Coefficients are those of OpenCV, in ROS's order, and act on the plane at distance 1 from the camera: cropping and
resizing a frame leave them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mvde.errors import UsageError

_MAX_COEFFICIENT = 1e9
"""Sanity limit; published lenses stay below 100."""
_NUM_RATIONAL = 8


class DistortionModel(str, Enum):
    """Name of a model, as ``CameraInfo.distortion_model`` has it."""

    PLUMB_BOB = "plumb_bob"
    """k1, k2, p1, p2 and k3, which may be missing: a polynomial of the squared radius, and decentring."""
    RATIONAL_POLYNOMIAL = "rational_polynomial"
    """k1, k2, p1, p2, k3, k4, k5, k6: the ratio of two polynomials, and decentring. Those of thin prisms and tilted
    sensors may follow as zeros."""
    EQUIDISTANT = "equidistant"
    """k1, k2, k3, k4: a polynomial of the angle from the optical axis (fisheye lenses, OpenCV's ``fisheye``)."""

    def __str__(self) -> str:
        return self.value


_COUNTS = {
    DistortionModel.PLUMB_BOB: (4, 5),
    DistortionModel.RATIONAL_POLYNOMIAL: (_NUM_RATIONAL, 12, 14),
    DistortionModel.EQUIDISTANT: (4,),
}


@dataclass(frozen=True)
class Distortion:
    """Distortion of a lens: its model, and the coefficients in ROS's order.

    Raises :class:`UsageError` for a model that is not known, a wrong number of coefficients, and such of a thin prism
    or a tilted sensor.
    """

    model: DistortionModel
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", _model(self.model))
        object.__setattr__(self, "coefficients", _coefficients(self.model, self.coefficients))

    @classmethod
    def of(cls, model: str, coefficients: Sequence[float]) -> Distortion | None:
        """Distortion of a calibration; ``None`` if no coefficient differs from 0.

        Raises :class:`UsageError` as the constructor does; the model of an undistorted lens is not looked at.
        """
        return cls(DistortionModel(_model(model)), tuple(coefficients)) if any(coefficients) else None


def _model(name: str) -> DistortionModel:
    try:
        return DistortionModel(name)
    except ValueError:
        known = ", ".join(DistortionModel)
        raise UsageError(f"distortion model {name!r} is not known; expected {known}: rectify the frames") from None


def _coefficients(model: DistortionModel, given: Sequence[float]) -> tuple[float, ...]:
    """The coefficients that count. Raises :class:`UsageError` if they are not those of the model."""
    counts = _COUNTS[model]
    if not isinstance(given, (tuple, list)) or len(given) not in counts:
        wanted = " or ".join(map(str, counts))
        raise UsageError(f"{model} distortion has {wanted} coefficients, but got {given!r}")
    for value in given:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or abs(value) >= _MAX_COEFFICIENT:
            raise UsageError(f"coefficients of a distortion are numbers below 1e9, but got {value!r}")
    if any(given[_NUM_RATIONAL:]):
        raise UsageError(
            f"{model} distortion has coefficients of a thin prism or a tilted sensor, {tuple(given[_NUM_RATIONAL:])}, "
            "which mvde does not know: rectify the frames"
        )
    return tuple(float(value) for value in given[:_NUM_RATIONAL])
