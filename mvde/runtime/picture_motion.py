"""Motion of the picture between two frames: shift, zoom and roll of a thumbnail of logarithmic brightness.

The logarithm makes a change of exposure one number, which is taken out before pictures are compared. Sums are of whole
numbers, or in the order of the pixels, so that an implementation in C++ gives equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvde.runtime.exact_math import exact_log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SIDE = 48
"""Rows and columns of a thumbnail; a pixel is four of a network of 192."""

_BLACK = np.float32(16.0)  # added to brightness of 0 to 255: keeps the noise of the dark from ruling the logarithm
_LEVELS = ((12, 6), (24, 4), (48, 4))  # side of the pyramid's levels, and steps of Gauss-Newton on each
_SMALLEST_STEP = 0.01  # pixels of the level, after which its steps end
_NOISE_FLOOR = np.float32(1e-3)
_DAMPING = 1e-3  # of the mean of the normal matrix' diagonal (Levenberg, 1944): holds what a bare wall leaves open


@dataclass(frozen=True)
class Motion:
    """Where a frame's pixels were in the frame before, as a similarity about the middle.

    A point at (x, y) from the middle was at ``(x + across + zoom x - roll y, y + down + roll x + zoom y)``, in units of
    the picture's width for x and of its height for y; roll couples them through the aspect. ``zoom`` is below 0 and
    about -speed / distance where the camera goes ahead, since what is near now filled less of the picture before.
    """

    across: float
    down: float
    zoom: float
    roll: float

    def largest_shift(self, height: int, width: int) -> float:
        """Bound of the shift of any pixel of a picture (height, width), in pixels."""
        turned = (abs(self.zoom) + abs(self.roll)) * max(height, width) / 2
        return max(abs(self.across) * width, abs(self.down) * height) + turned


class Change(NamedTuple):
    """How two thumbnails differ: their correlation as they are, and the mean difference left after the motion.

    ``spread`` is the standard deviation of the newer one.
    """

    correlation: float
    residual: float
    spread: float


def thumbnail(picture: NDArray[np.uint8]) -> Floats:
    """Logarithm of the mean brightness over 48 x 48 cells of an RGB picture (H, W, 3) uint8; float32 (48, 48).

    Brightness is (R + 2 G + B) / 4. Cells of a picture of fewer pixels are single pixels.
    """
    luma = picture[..., 1].astype(np.int32) * 2
    luma += picture[..., 0]
    luma += picture[..., 2]
    sums, counts = cell_sums(luma, SIDE), cell_counts(luma.shape, SIDE)
    mean = sums.astype(np.float32) / (np.float32(4) * counts.astype(np.float32))
    return exact_log(mean + _BLACK)


def cell_sums(values: NDArray[np.integer], side: int) -> NDArray[np.int64]:
    """Sums of whole numbers (H, W) over ``side`` x ``side`` cells, int64."""
    height, width = values.shape
    by_rows = np.add.reduceat(values, _starts(height, side), axis=0, dtype=np.int64)
    return np.asarray(np.add.reduceat(by_rows, _starts(width, side), axis=1))


def cell_counts(shape: tuple[int, ...], side: int) -> NDArray[np.int64]:
    """Pixels in each of ``side`` x ``side`` cells of a map of ``shape``, int64."""
    rows, columns = (np.diff(np.append(_starts(length, side), length)) for length in shape[:2])
    return np.outer(np.maximum(rows, 1), np.maximum(columns, 1)).astype(np.int64)


def _starts(length: int, side: int) -> NDArray[np.intp]:
    return np.arange(side) * length // side


def estimate_motion(before: Floats, now: Floats, aspect: float) -> Motion:
    """Motion from the thumbnail ``now`` to the one ``before``; ``aspect`` is the picture's height over its width.

    Gauss-Newton from coarse to fine (Lucas and Kanade, 1981; Bouguet, 2000) on four parameters with the gain, the
    median difference, taken out of each step, and weights of Geman and McClure (1985) against what moves by itself.
    """
    found = np.zeros(4)
    for side, steps in _LEVELS:
        found = _refined(_shrunk(before, side), _shrunk(now, side), found, steps, aspect)
    return Motion(*(float(one) for one in found))


def compare(before: Floats, now: Floats, motion: Motion, aspect: float) -> Change:
    """Correlation of two thumbnails as they are, and their mean difference after motion and gain, where both are."""
    a, b = (one.astype(np.float64) - ordered_sum(one.astype(np.float64)) / one.size for one in (before, now))
    shared = ordered_sum(a * b) / np.sqrt(ordered_sum(a * a) * ordered_sum(b * b) + 1e-9)
    spread = float(np.sqrt(ordered_sum(b * b) / b.size))
    rows, columns = moved_grid(SIDE, SIDE, motion, aspect)
    inside = within(rows, columns, SIDE, SIDE)
    if not inside.any():
        return Change(float(shared), float("inf"), spread)
    difference = (bilinear(before, rows, columns) - now)[inside]
    distance = np.abs(difference - lower_median(difference)).astype(np.float64)
    return Change(float(shared), float(ordered_sum(distance) / len(distance)), spread)


def moved_grid(height: int, width: int, motion: Motion, aspect: float) -> tuple[Floats, Floats]:
    """Rows and columns (height, width) float32 where the pixels of a map were in the frame before."""
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2))[:, None]
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2))[None]
    own_y, own_x = np.float32(1 + motion.zoom) * y, np.float32(1 + motion.zoom) * x
    cross_x = np.float32(motion.roll * aspect * width / height) * y
    cross_y = np.float32(motion.roll / aspect * height / width) * x
    rows = (own_y + np.float32(motion.down * height + (height - 1) / 2)) + cross_y
    columns = (own_x + np.float32(motion.across * width + (width - 1) / 2)) - cross_x
    return rows, columns


def within(rows: Floats, columns: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Whether places lie on the pixels of a map (height, width)."""
    half = np.float32(0.5)
    inside: NDArray[np.bool_] = (rows >= -half) & (rows <= np.float32(height) - half)
    return inside & (columns >= -half) & (columns <= np.float32(width) - half)


def bilinear(values: Floats, rows: Floats, columns: Floats) -> Floats:
    """Values (H, W) float32 at places, which are kept inside the map; NaN where one of four neighbours is."""
    height, width = values.shape
    y, x = np.clip(rows, np.float32(0), np.float32(height - 1)), np.clip(columns, np.float32(0), np.float32(width - 1))
    top, left = np.minimum(y.astype(np.int32), height - 2), np.minimum(x.astype(np.int32), width - 2)
    v, u = y - top.astype(np.float32), x - left.astype(np.float32)
    flat, at = values.ravel(), top * width + left
    a, b, c, d = flat[at], flat[at + 1], flat[at + width], flat[at + width + 1]
    upper, lower = a + u * (b - a), c + u * (d - c)
    found: Floats = upper + v * (lower - upper)
    return found


def resampled(values: Floats, shape: tuple[int, ...]) -> Floats:
    """A map (H, W) float32 at another ``shape``, bilinearly; NaN where one of four neighbours is."""
    rows, columns = (
        (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(of / length) - np.float32(0.5)
        for of, length in zip(values.shape, shape, strict=True)
    )
    return bilinear(values, np.repeat(rows[:, None], shape[1], axis=1), np.repeat(columns[None], shape[0], axis=0))


def lower_median(values: NDArray[np.floating]) -> np.floating:
    """The middle value, the lower of two; it is one of the values, however they are ordered."""
    flat = values.ravel()
    middle = (flat.size - 1) // 2
    found: np.floating = np.partition(flat, middle)[middle]
    return found


def ordered_sum(values: NDArray[np.float64]) -> np.float64:
    """Sum of the values in their order, one after the other."""
    total: np.float64 = np.add.accumulate(values.ravel())[-1]
    return total


def _shrunk(image: Floats, side: int) -> Floats:
    """Halve a thumbnail down to ``side``, after a binomial filter that keeps its noise out of the gradients."""
    while image.shape[0] > side:
        image = ((image[::2, ::2] + image[1::2, ::2]) + (image[::2, 1::2] + image[1::2, 1::2])) * np.float32(0.25)
    padded = np.pad(image, 1, mode="edge")
    rows = ((padded[:-2] + padded[2:]) + (padded[1:-1] + padded[1:-1])) * np.float32(0.25)
    result: Floats = ((rows[:, :-2] + rows[:, 2:]) + (rows[:, 1:-1] + rows[:, 1:-1])) * np.float32(0.25)
    return result


def _refined(before: Floats, now: Floats, start: NDArray[np.float64], steps: int, aspect: float) -> NDArray[np.float64]:
    side = len(now)
    found = start.copy()
    across, down = np.zeros_like(before), np.zeros_like(before)
    across[:, 1:-1] = (before[:, 2:] - before[:, :-2]) * np.float32(0.5)
    down[1:-1] = (before[2:] - before[:-2]) * np.float32(0.5)
    offsets = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    x, y = np.broadcast_to(offsets[None], (side, side)), np.broadcast_to(offsets[:, None], (side, side))
    for _ in range(steps):
        rows, columns = moved_grid(side, side, Motion(*found), aspect)
        inside = within(rows, columns, side, side)
        if np.count_nonzero(inside) < side * side // 4:
            break
        left = bilinear(before, rows, columns) - now
        left -= lower_median(left[inside])
        spread = np.float32(3.0) * lower_median(np.abs(left[inside])) + _NOISE_FLOOR
        ratio = left / spread
        weight = np.where(inside, np.float32(1) / (np.float32(1) + ratio * ratio), np.float32(0))
        weight *= weight
        gx, gy = bilinear(across, rows, columns), bilinear(down, rows, columns)
        slopes = (gx, gy, gx * x + gy * y, gy * x * np.float32(1 / aspect) - gx * y * np.float32(aspect))
        step = _solve(slopes, left, weight)
        found -= step * np.array([1 / side, 1 / side, 1.0, 1.0])
        if np.abs(step * np.array([1.0, 1.0, side / 2, side / 2])).max() < _SMALLEST_STEP:
            break
    return found


def _solve(slopes: tuple[Floats, ...], left: Floats, weight: Floats) -> NDArray[np.float64]:
    """Step of Gauss-Newton: the damped normal equations of four parameters, scaled to one size."""
    scale = np.array([1.0, 1.0, 2 / len(left), 2 / len(left)])  # a change of 1 pixel at the edge
    columns = [(slope.astype(np.float64) * factor).ravel() for slope, factor in zip(slopes, scale, strict=True)]
    weights = weight.astype(np.float64).ravel()
    products = [columns[i] * columns[j] * weights for i in range(4) for j in range(i, 4)]
    products += [columns[i] * left.astype(np.float64).ravel() * weights for i in range(4)]
    sums = np.add.accumulate(np.stack(products), axis=1)[:, -1]
    normal, at = np.zeros((4, 4)), 0
    for i in range(4):
        for j in range(i, 4):
            normal[i, j] = normal[j, i] = sums[at]
            at += 1
    trace = ((normal[0, 0] + normal[1, 1]) + normal[2, 2]) + normal[3, 3]
    for i in range(4):
        normal[i, i] += _DAMPING * trace / 4 + 1e-9
    solved: NDArray[np.float64] = _eliminated(normal, sums[10:].copy()) * scale
    return solved


def _eliminated(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve a positive definite system (4, 4) by elimination without pivots, in the order of its rows."""
    count = len(right)
    for i in range(count):
        for k in range(i + 1, count):
            factor = matrix[k, i] / matrix[i, i]
            for j in range(i, count):
                matrix[k, j] -= factor * matrix[i, j]
            right[k] -= factor * right[i]
    for i in reversed(range(count)):
        for j in range(i + 1, count):
            right[i] -= matrix[i, j] * right[j]
        right[i] /= matrix[i, i]
    return right
