"""Resampling as tables of taps: the specification that every resizer reproduces bit for bit.

An image is resized along x, then along y; each pass sums taps in 22-bit fixed point and rounds to bytes, as Pillow
does. Pillow, libmvde and the CUDA kernel compute from the same weights. Depth is summed in double precision, rounded to
float32 after each pass. So does Pillow, but for builds that fuse multiplications with additions, such as its wheel for
ARM: they differ by a unit in the last place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mvde.contract import Interpolation, PreprocessRecord
from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PILLOWS_BICUBIC = -0.5
"""Coefficient of Pillow and of torch with antialiasing; OpenCV and torch without antialiasing have -0.75."""

_COEFFICIENTS = (PILLOWS_BICUBIC, -0.75)
_WEIGHT_BITS = 22  # fractional bits of Pillow's fixed-point weights


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How frames are resampled and placed, as in :class:`PreprocessRecord`; by default as mvde's own models need it.

    Antialiasing widens the kernel where the image shrinks and leaves out taps beyond the border, as Pillow and torch
    do. Without it the border is replicated, as in torch and OpenCV.
    """

    interpolation: Interpolation = Interpolation.BILINEAR
    antialias: bool = True
    bicubic_coefficient: float | None = None
    align_corners: bool = False
    multiple: int = 1
    padding: int = 128

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for values that no resizer supports."""
        known = _COEFFICIENTS if self.interpolation is Interpolation.BICUBIC else (None,)
        if self.bicubic_coefficient not in known:
            raise UsageError(
                f"the bicubic coefficient is {self.bicubic_coefficient}, but {self.interpolation} resampling takes "
                f"{' or '.join(map(str, known))}"
            )
        if self.align_corners and self.antialias:
            raise UsageError("align_corners is defined without antialiasing only")
        if self.multiple < 1 or not 0 <= self.padding <= 255:
            raise UsageError(
                f"sides of {self.multiple} pixels and a padding of {self.padding}: expected 1 or more, and 0 to 255"
            )

    @classmethod
    def of(cls, record: PreprocessRecord) -> Resampling:
        """Resampling that a manifest states."""
        return cls(
            interpolation=record.interpolation,
            antialias=record.antialias,
            bicubic_coefficient=record.bicubic_coefficient,
            align_corners=record.align_corners,
            multiple=record.multiple,
            padding=record.padding,
        )

    @property
    def is_pillows(self) -> bool:
        """Whether Pillow's ``Image.resize`` computes the same bits."""
        return self.antialias and self.bicubic_coefficient in (None, PILLOWS_BICUBIC)

    @property
    def reach(self) -> int:
        """Half of the kernel's width in pixels, before it is widened."""
        return 2 if self.interpolation is Interpolation.BICUBIC else 1


DEFAULT_RESAMPLING = Resampling()


class ResizeTable(NamedTuple):
    """Taps of one axis, all int32; ``weights`` (target, most) have 22 fractional bits.

    They depend only on sizes and resampling, so a caller uploads them once, in the layout of :meth:`packed`.
    """

    firsts: NDArray[np.int32]
    counts: NDArray[np.int32]
    weights: NDArray[np.int32]

    def packed(self) -> NDArray[np.int32]:
        """Concatenate all three into the layout that the CUDA kernel expects."""
        import numpy as np

        return np.concatenate([self.firsts, self.counts, self.weights.reshape(-1)])


def most_taps(source_size: int, target_size: int, resampling: Resampling = DEFAULT_RESAMPLING) -> int:
    """Width of the table: an upper limit of the taps of one target pixel."""
    if not resampling.antialias:
        return 2 * resampling.reach
    return math.ceil(resampling.reach * max(source_size / target_size, 1.0)) * 2 + 1


def resize_table(source_size: int, target_size: int, resampling: Resampling = DEFAULT_RESAMPLING) -> ResizeTable:
    """Compute the taps from ``source_size`` to ``target_size`` pixels.

    Raises :class:`UsageError` for a side that is not positive.
    """
    import numpy as np

    if source_size < 1 or target_size < 1:
        raise UsageError(f"a side of {source_size} pixels cannot be resized to {target_size}; both must be positive")
    make = _antialiased if resampling.antialias else _interpolated
    firsts, counts, weights = make(source_size, target_size, resampling)
    fixed = np.where(weights < 0, -0.5, 0.5) + weights * (1 << _WEIGHT_BITS)
    return ResizeTable(firsts.astype(np.int32), counts.astype(np.int32), fixed.astype(np.int32))


def resample(image: NDArray[np.uint8], table: ResizeTable, axis: int) -> NDArray[np.uint8]:
    """Resample one axis of an image, uint8: the specification, in NumPy."""
    import numpy as np

    lines = np.moveaxis(image, axis, 0)
    sums = np.full((len(table.firsts), *lines.shape[1:]), 1 << (_WEIGHT_BITS - 1), np.int32)
    for tap, weights in enumerate(table.weights.T):
        taken = lines[np.minimum(table.firsts + tap, len(lines) - 1)]  # beyond its count a pixel's weight is 0
        sums += taken.astype(np.int32) * weights.reshape(-1, *(1,) * (lines.ndim - 1))
    return np.moveaxis(np.clip(sums >> _WEIGHT_BITS, 0, 255).astype(np.uint8), 0, axis)


def resample_depth(depth: NDArray[np.float32], size: tuple[int, int], invalid: float) -> NDArray[np.float32]:
    """Return depth (H, W), float32, resized to ``size``, bilinear over the neighbours that have it.

    Depth is finite. A pixel whose neighbours without depth weigh more than half has none: it is +inf if
    most of that weight is +inf, else ``invalid``; an ``invalid`` of 0 stands for both.
    """
    import numpy as np

    valid, far = np.isfinite(depth), np.isposinf(depth)
    across, down = (_antialiased(depth.shape[axis], size[axis], DEFAULT_RESAMPLING) for axis in (1, 0))
    if valid.all():
        if depth.shape == size:
            return depth.copy()
        return _summed(_summed(depth, across, axis=1).astype(np.float32), down, axis=0).astype(np.float32)
    planes = [np.where(valid, depth, np.float32(0)), valid, ~valid, far]
    sums, weights, missing, infinite = (_summed(plane, across, axis=1) for plane in planes)
    weights = np.where(missing > 0, weights.astype(np.float32), np.float32(1))
    planes = [sums.astype(np.float32), weights, 1 - weights.astype(np.float64), infinite.astype(np.float32)]
    sums, weights, missing, infinite = (_summed(plane, down, axis=0) for plane in planes)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        means = np.where(missing > 0, sums / weights, sums).astype(np.float32)
    without = np.where(infinite > missing - infinite, invalid if invalid == 0 else math.inf, invalid)
    return np.where((missing > 0) & (weights.astype(np.float32) < 0.5), without.astype(np.float32), means)


def _summed(plane: NDArray[Any], taps: _Taps, axis: int) -> NDArray[np.float64]:
    """Sum the taps of one axis in double precision, one after another."""
    import numpy as np

    firsts, _, weights = taps
    pixels, last = plane.astype(np.float64), plane.shape[axis] - 1
    sums: Any = 0.0
    for tap, factors in enumerate(np.expand_dims(weights.T, 2 - axis)):  # beyond its count a pixel's weight is 0
        if factors.any():
            sums += np.take(pixels, np.minimum(firsts + tap, last), axis) * factors
    return cast("NDArray[np.float64]", sums)


_Taps = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float64]"]


def _antialiased(source_size: int, target_size: int, resampling: Resampling) -> _Taps:
    """Pillow's ``precompute_coeffs``, in its order of operations."""
    import numpy as np

    scale = source_size / target_size
    widening = max(scale, 1.0)
    support, most = resampling.reach * widening, most_taps(source_size, target_size, resampling)
    centres = (np.arange(target_size) + 0.5) * scale
    firsts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centres + support + 0.5).astype(np.int64), source_size)
    positions = np.arange(most)[None, :]
    distances = (positions + firsts[:, None] - centres[:, None] + 0.5) * (1.0 / widening)
    weights = np.where(positions < (ends - firsts)[:, None], _kernel(distances, resampling), 0.0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # sequential sum, in Pillow's order
    return firsts, ends - firsts, weights


def _interpolated(source_size: int, target_size: int, resampling: Resampling) -> _Taps:
    """Weights of torch and OpenCV without antialiasing: taps beyond the border count for the border."""
    import numpy as np

    targets = np.arange(target_size)
    if resampling.align_corners:
        centres = targets * ((source_size - 1) / (target_size - 1) if target_size > 1 else 0.0)
    else:
        centres = (targets + 0.5) * (source_size / target_size) - 0.5
    whole = np.floor(centres)
    offsets = np.arange(1 - resampling.reach, resampling.reach + 1)[None, :]
    values = _kernel(offsets - (centres - whole)[:, None], resampling)
    inputs = np.clip(whole.astype(np.int64)[:, None] + offsets, 0, source_size - 1)
    firsts = inputs[:, 0]
    weights = np.zeros(values.shape)
    np.add.at(weights, (targets[:, None], inputs - firsts[:, None]), values)
    return firsts, inputs[:, -1] - firsts + 1, weights


def _kernel(distances: NDArray[np.float64], resampling: Resampling) -> NDArray[np.float64]:
    """Weight at a distance in pixels: a triangle, or Keys' cubic in Pillow's order of operations."""
    import numpy as np

    x = np.abs(distances)
    if resampling.bicubic_coefficient is None:
        return np.maximum(1.0 - x, 0.0)
    a = resampling.bicubic_coefficient
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
