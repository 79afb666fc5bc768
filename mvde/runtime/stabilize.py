"""Depth that is steady over time, of any model, frame after frame: the specification in NumPy.

Models of single frames flicker mostly in scale (DyFN, arXiv 2605.25308), so the map of each frame is first brought near
the scale of the past, by the median over patches, and then averaged with it at each pixel, less where they differ by
more than an edge does that has moved by a pixel. The past, the state, follows the picture: it is warped by the shift,
zoom and roll between two frames, and what a zoom says of the distance is added to it, without which the scale of a
camera that goes ahead lags behind. A cut begins anew.

All that is summed is whole numbers or in order, and logarithms are those of :mod:`mvde.runtime.exact_math`: an
implementation in C++ can give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.runtime.picture_motion import (
    Motion,
    bilinear,
    compare,
    estimate_motion,
    moved_grid,
    resampled,
    thumbnail,
    within,
)
from mvde.runtime.steady_scale import AffineDomain, Domain, LogDomain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SMALLEST_SHIFT_PX = 0.05
"""Motion that moves no pixel by more is left out, which saves the warp and its smoothing of a camera at rest."""

_ASPECT_SHARE = 50
"""One part in so many by which the aspect of pictures of one camera may differ: whole pixels of another resolution."""


@dataclass(frozen=True)
class Stabilization:
    """How far a new frame moves the steady depth; differences are of logarithms of depth.

    ``scale_gain`` is the share of a change of the frame's scale that is let through, up to a change of ``scale_open``;
    at ``scale_full`` all of it is. ``gain`` is the share of a pixel's own change, which opens in the same way from
    ``open`` to ``full``: distances by which one of the pixel and its past is outside what the other has in the 3 x 3
    pixels around, so that an edge that trembles by a pixel opens nothing. A frame whose correlation to the one before
    is below ``cut_correlation`` is a cut if what is left after the motion is above ``cut_residual`` and above
    ``cut_share`` of the picture's own spread: of pairs of frames of different scenes nine in ten are, and none of a
    scene's own at 30 or 10 frames per second. After ``max_gap_s`` seconds without a frame the past is dropped, where
    frames have times. All were chosen on clips that no table of docs/video.md is of.
    """

    scale_gain: float = 0.5
    scale_open: float = 0.15
    scale_full: float = 0.4
    gain: float = 0.25
    open: float = 0.1
    full: float = 0.3
    cut_correlation: float = 0.8
    cut_residual: float = 0.03
    cut_share: float = 0.33
    max_gap_s: float = 1.0

    def __post_init__(self) -> None:
        """Raise UsageError for a share outside (0, 1] or an interval without a length."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UsageError(f"{one.name} of the stabilization is {value!r}; expected a number")
        for name in ("scale_gain", "gain"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is a share of each change, above 0 and up to 1, but got {getattr(self, name)}"
                )
        if not (0 <= self.scale_open < self.scale_full and 0 <= self.open < self.full):
            raise UsageError(
                f"a gain opens between two differences, the smaller one first, but got {self.scale_open} to "
                f"{self.scale_full} for the scale and {self.open} to {self.full} for pixels"
            )
        if self.max_gap_s <= 0:
            raise UsageError(f"max_gap_s is {self.max_gap_s}; expected more than 0 seconds")


class Stabilizer:
    """State of one stream of frames: its steady depth, and the picture that it belongs to.

    Belongs to one thread at a time.
    """

    def __init__(self, kind: DepthKind, settings: Stabilization | None = None) -> None:
        self._settings = settings or Stabilization()
        self._domain: Domain = AffineDomain() if kind is DepthKind.INVERSE_RELATIVE else LogDomain(kind)
        self._past: Floats | None = None
        self._thumbnail: Floats | None = None
        self._view: Hashable = None
        self._picture = (1, 1)
        self._time_s: float | None = None
        self.num_frames = 0
        """Frames since it began anew, the last one included: 1 where depth is the network's own."""

    def reset(self) -> None:
        """Forget the past: the next frame begins anew."""
        self._past, self._time_s, self.num_frames = None, None, 0

    def update(
        self, picture: NDArray[np.uint8], depth: Floats, *, view: Hashable = None, time_s: float | None = None
    ) -> Floats:
        """Return the steady map (H, W) float32 of the next frame, from its own, ``depth``, in its unit.

        ``picture`` (H', W', 3), uint8 RGB, shows the same part of the scene at any resolution. A pixel without a
        value (not finite, or not above 0 where the kind is a distance) is returned as it is. ``view`` is what the maps
        depend on besides the picture, such as the camera: where it or the picture's aspect changes, the past is
        dropped. Where the map alone has another size than the one before, as of an engine of another resolution, the
        past is resampled to it. ``time_s`` is when the frame was taken.

        Raises :class:`UsageError` for a picture or a map of another type or rank, and for a time that is not after the
        one before.
        """
        _check(picture, depth)
        self._check_time(time_s)
        now, aspect = thumbnail(picture), picture.shape[0] / picture.shape[1]
        motion = self._motion(now, aspect) if self._goes_on(view, picture.shape[:2], depth.shape) else None
        if motion is None:
            self.num_frames = 1
            self._domain.begin(depth)
            steady, result = self._domain.enter(depth), depth.copy()
        else:
            self.num_frames += 1
            mapped = self._domain.enter(depth)
            steady = self._blended(mapped, self._followed(depth.shape, motion, aspect))
            result = np.where(np.isnan(mapped), depth, self._domain.leave(steady))
        self._past, self._thumbnail, self._view, self._time_s = steady, now, view, time_s
        self._picture = picture.shape[:2]
        return result

    def _goes_on(self, view: Hashable, picture: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether a frame shows what the past is of, but for its motion."""
        if self._past is None or view != self._view or min(*self._past.shape, *shape) < 2:
            return False
        height, width = self._picture
        one, other = height * picture[1], width * picture[0]
        return _ASPECT_SHARE * abs(one - other) <= min(one, other)

    def _motion(self, now: Floats, aspect: float) -> Motion | None:
        """Motion of the picture since the last frame; ``None`` at a cut."""
        settings = self._settings
        assert self._thumbnail is not None
        motion = estimate_motion(self._thumbnail, now, aspect)
        change = compare(self._thumbnail, now, motion, aspect)
        floor = max(settings.cut_residual, settings.cut_share * change.spread)
        is_cut = change.correlation < settings.cut_correlation and change.residual > floor
        return None if is_cut else motion

    def _check_time(self, time_s: float | None) -> None:
        """Drop the past after a long gap; refuse a time that is not after the last one."""
        last = self._time_s
        if time_s is not None and not math.isfinite(time_s):
            raise UsageError(f"a frame has the time {time_s}; expected seconds, or None where it is not known")
        if time_s is None or last is None:
            return
        if not time_s > last:
            raise UsageError(
                f"the frame at {time_s:.6f} s comes after the one at {last:.6f} s; give each frame once, in the order "
                "in which they were taken, or reset the stabilizer where another recording begins"
            )
        if time_s - last > self._settings.max_gap_s:
            self.reset()

    def _followed(self, shape: tuple[int, ...], motion: Motion, aspect: float) -> Floats:
        """The past where the pixels of a map of ``shape`` are now, NaN where it saw nothing."""
        assert self._past is not None
        past = self._past if self._past.shape == shape else resampled(self._past, shape)
        height, width = past.shape
        if motion.largest_shift(height, width) < SMALLEST_SHIFT_PX:
            return past
        rows, columns = moved_grid(height, width, motion, aspect)
        moved = np.where(within(rows, columns, height, width), bilinear(past, rows, columns), np.float32(np.nan))
        return self._domain.nearer(moved, motion.zoom)

    def _blended(self, mapped: Floats, past: Floats) -> Floats:
        """The map at the scale of the past, averaged with it; the map alone where there is no past."""
        settings, frames = self._settings, self.num_frames
        # A mean over the frames there are (gain 1/n) until the gain is smaller: a bad first frame would stay else.
        gain = max(settings.gain, 1.0 / frames)
        scale_gain = max(settings.scale_gain * settings.gain, 1.0 / frames) / gain
        aligned = self._domain.align(mapped, past, scale_gain, settings.scale_open, settings.scale_full)
        difference = aligned - past
        distance = _larger(_outside(past, aligned), _outside(aligned, past)) * self._domain.log_per_unit
        opened = (distance - np.float32(settings.open)) * np.float32(1.0 / (settings.full - settings.open))
        opened = np.clip(opened, np.float32(0), np.float32(1))
        share = np.float32(gain) + np.float32(1.0 - gain) * opened
        return np.where(np.isnan(difference), aligned, past + share * difference)


def _outside(values: Floats, other: Floats) -> Floats:
    """By how much values (H, W) are outside what ``other`` has in the 3 x 3 pixels around: 0 inside."""
    low, high = _extreme(other, np.less), _extreme(other, np.greater)
    return _larger(_larger(values - high, low - values), np.zeros_like(values))


def _larger(one: Floats, other: Floats) -> Floats:
    return np.where(one > other, one, other)


def _extreme(values: Floats, is_more: np.ufunc) -> Floats:
    """Extreme of the 3 x 3 pixels around each: of the columns whose middle is known."""
    for axis in (0, 1):
        middle = values
        before, after = (np.take(middle, _neighbours(middle.shape[axis], step), axis=axis) for step in (-1, 1))
        for other in (before, after):
            values = np.where(is_more(other, values), other, values)
    return values


def _neighbours(length: int, step: int) -> NDArray[np.intp]:
    return np.clip(np.arange(length) + step, 0, length - 1)


def _check(picture: NDArray[np.uint8], depth: Floats) -> None:
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        got = f"{picture.shape} {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise UsageError(f"the stabilizer got a picture of {got}; expected RGB (H, W, 3), uint8")
    if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype != np.float32 or not depth.size:
        got = f"{depth.shape} {depth.dtype}" if isinstance(depth, np.ndarray) else type(depth).__name__
        raise UsageError(f"the stabilizer got a map of {got}; expected one (H, W), float32")
