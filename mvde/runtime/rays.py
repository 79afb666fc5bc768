"""The ray of every pixel of a camera: the specification of libmvde's tables (``cpp/src/image/rays.cpp``).

Distorted lenses are undone by Newton's method with a fixed number of steps. Only additions, multiplications, divisions
and square roots are used, in the order of the C++ code, so that both have the same bits; library functions such as
``tan`` differ in their last bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mvde.distortion import Distortion, DistortionModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera

    Doubles = NDArray[np.float64]

_NUM_STEPS = 10
"""Of Newton's method; a lens takes 3 to 6."""
_NUM_SAMPLES = 4096
"""Of a lens's curve, to find where it folds back."""
_MAX_RADIUS = 16.0
"""x/z of 86 degrees from the optical axis."""
_MAX_ANGLE = 1.5
"""Radians from the optical axis, where a ray still has a z."""
_MAX_RESIDUAL = 1e-9
"""Of a ray that the lens bends to where the pixel is; a thousandth of a float32's step at 1."""


def camera_rays(camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rays (x/z, y/z) of a camera's pixels, float32, NaN where the lens has none; shapes as of :func:`exact_rays`."""
    x, y = exact_rays(camera)
    return x.astype(np.float32), y.astype(np.float32)


def exact_rays(camera: Camera) -> tuple[Doubles, Doubles]:
    """Rays (x/z, y/z) of a camera's pixels, float64, NaN where the lens has none.

    Of shapes (1, W) and (H, 1) without distortion, else both (H, W).
    """
    height, width = camera.size
    u = ((np.arange(width, dtype=np.float64) - camera.cx) / camera.fx)[None]
    v = ((np.arange(height, dtype=np.float64) - camera.cy) / camera.fy)[:, None]
    return (u, v) if camera.distortion is None else _undistorted(camera.distortion, *np.broadcast_arrays(u, v))


def _undistorted(lens: Distortion, u: Doubles, v: Doubles) -> tuple[Doubles, Doubles]:
    """Rays of points (u, v) of the plane at distance 1 as the lens shows it."""
    with np.errstate(all="ignore"):  # where there is no ray, steps leave the plane
        match lens.model:
            case DistortionModel.EQUIDISTANT:
                return _undo_angle(lens.coefficients, u, v)
            case DistortionModel.PLUMB_BOB | DistortionModel.RATIONAL_POLYNOMIAL:
                return _undo_polynomial((*lens.coefficients, 0.0, 0.0, 0.0, 0.0)[:8], u, v)


def _undo_polynomial(k: tuple[float, ...], u: Doubles, v: Doubles) -> tuple[Doubles, Doubles]:
    _, _, p1, p2, *_ = k
    x, y = u.copy(), v.copy()
    for _ in range(_NUM_STEPS):
        r2 = x * x + y * y
        factor, slope = _curve(k, r2)
        f = x * factor + (2 * p1 * x * y + p2 * (r2 + 2 * x * x)) - u
        g = y * factor + (p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) - v
        fx = factor + 2 * x * x * slope + (2 * p1 * y + 6 * p2 * x)
        fy = 2 * x * y * slope + (2 * p1 * x + 2 * p2 * y)
        gy = factor + 2 * y * y * slope + (6 * p1 * y + 2 * p2 * x)
        det = fx * gy - fy * fy
        x = x - (f * gy - g * fy) / det
        y = y - (g * fx - f * fy) / det
    r2 = x * x + y * y
    factor, _ = _curve(k, r2)
    du = x * factor + (2 * p1 * x * y + p2 * (r2 + 2 * x * x)) - u
    dv = y * factor + (p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) - v
    is_ray = (r2 < _polynomial_limit(k)) & (du * du + dv * dv < _MAX_RESIDUAL * _MAX_RESIDUAL)
    return np.where(is_ray, x, math.nan), np.where(is_ray, y, math.nan)


def _curve(k: tuple[float, ...], r2: Doubles) -> tuple[Doubles, Doubles]:
    """Radial factor, and its slope along the squared radius."""
    top, top_slope = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4])), k[0] + r2 * (2 * k[1] + r2 * (3 * k[4]))
    low, low_slope = 1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])), k[5] + r2 * (2 * k[6] + r2 * (3 * k[7]))
    return top / low, (top_slope * low - top * low_slope) / (low * low)


def _polynomial_limit(k: tuple[float, ...]) -> float:
    """Squared radius up to which the distorted radius grows with the true one."""
    r = _MAX_RADIUS * np.arange(1, _NUM_SAMPLES + 1, dtype=np.float64) / _NUM_SAMPLES
    factor, slope = _curve(k, r * r)
    folds = np.flatnonzero(~((factor > 0) & (factor + 2 * (r * r) * slope > 0)))
    return float(r[folds[0]] * r[folds[0]]) if len(folds) else _MAX_RADIUS * _MAX_RADIUS


def _undo_angle(k: tuple[float, ...], u: Doubles, v: Doubles) -> tuple[Doubles, Doubles]:
    distorted = np.sqrt(u * u + v * v)
    angle = distorted.copy()
    for _ in range(_NUM_STEPS):
        a2 = angle * angle
        angle = angle - (angle * _angle_factor(k, a2) - distorted) / _angle_slope(k, a2)
    residual = angle * _angle_factor(k, angle * angle) - distorted
    is_ray = (angle > 0) & (angle < _angle_limit(k)) & (residual * residual < _MAX_RESIDUAL * _MAX_RESIDUAL)
    stretch = np.where(is_ray, _tangent(angle) / distorted, math.nan)
    stretch[distorted < 1e-9] = 1.0  # the optical axis
    return u * stretch, v * stretch


def _angle_factor(k: tuple[float, ...], a2: Doubles) -> Doubles:
    return 1 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3])))


def _angle_slope(k: tuple[float, ...], a2: Doubles) -> Doubles:
    return 1 + a2 * (3 * k[0] + a2 * (5 * k[1] + a2 * (7 * k[2] + a2 * (9 * k[3]))))


def _angle_limit(k: tuple[float, ...]) -> float:
    """Angle up to which the distorted angle grows with the true one."""
    angle = _MAX_ANGLE * np.arange(1, _NUM_SAMPLES + 1, dtype=np.float64) / _NUM_SAMPLES
    folds = np.flatnonzero(~(_angle_slope(k, angle * angle) > 0))
    return float(angle[folds[0]]) if len(folds) else _MAX_ANGLE


def _tangent(angle: Doubles) -> Doubles:
    """Tangent of 0 to 1.5 by the series of sine and cosine of half of it; within 2e-15 of it, relatively."""
    half = angle / 2
    h2 = half * half
    sine, cosine = np.ones_like(half), np.ones_like(half)
    for i in range(18, 1, -2):
        sine = 1 - h2 / (i * (i + 1)) * sine
        cosine = 1 - h2 / (i * (i - 1)) * cosine
    sine = sine * half
    return 2 * sine * cosine / (cosine * cosine - sine * sine)
