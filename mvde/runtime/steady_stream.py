"""Steady depth in a stream: the maps of each frame are stabilised before they become depth and statistics."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvde.contract import DepthKind, OutputRole
from mvde.errors import UsageError
from mvde.runtime.batches import Ran
from mvde.runtime.stabilize import Stabilization, Stabilizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Maps
    from mvde.runtime.fitter import Fitted
    from mvde.runtime.view import View


class TimedFrame(NamedTuple):
    """A frame (H, W, 3), uint8 RGB, and when it was taken in seconds, if that is known."""

    image: NDArray[np.uint8]
    time_s: float | None


def timed(frames: Iterable[NDArray[np.uint8]], times_s: Iterable[float] | None) -> Iterator[TimedFrame]:
    """Yield the frames with their times.

    Raises :class:`UsageError` where the frames outlast the times; times that are left over are not read.
    """
    if times_s is None:
        for image in frames:
            yield TimedFrame(image, None)
        return
    times = iter(times_s)
    for number, image in enumerate(frames):
        time_s = next(times, None)
        if time_s is None:
            raise UsageError(f"times_s ended after {number} frames, and there are more; give a time for each frame")
        yield TimedFrame(image, time_s)


def times_of(frames: Sequence[TimedFrame]) -> list[float | None]:
    """Times of frames."""
    return [one.time_s for one in frames]


class SteadyMaps:
    """The stabiliser of one stream, applied to its batches in their order."""

    def __init__(self, kind: DepthKind, settings: Stabilization) -> None:
        self._stabilizer = Stabilizer(kind, settings)

    def steadied(self, ran: Ran) -> Ran:
        """Return the batch with steady maps; its statistics are to be computed of them."""
        started, prepared = time.perf_counter(), ran.prepared
        times = prepared.times_s or [None] * len(prepared.fitted)
        frames = zip(prepared.images, ran.maps, prepared.fitted, prepared.views, times, strict=False)
        done = [self._frame(*frame) for frame in frames]  # the images of a short batch have padding behind them
        spent_ms = (time.perf_counter() - started) * 1e3
        maps, ages = [one for one, _ in done], [age for _, age in done]
        return dataclasses.replace(ran, maps=maps, stats=None, num_steady=ages, steady_ms=spent_ms)

    def _frame(
        self, image: NDArray[np.uint8], maps: Maps, fitted: Fitted, view: View, time_s: float | None
    ) -> tuple[Maps, int]:
        """Maps with steady depth in the frame's own part of the network's input, and the frames it goes back."""
        placement, raw = fitted.placement, maps[OutputRole.DEPTH]
        inside = placement.target_box.slices
        # Nine digits: a camera carried into the input of another resolution differs in the last ones.
        scales = (f"{view.scale:.9g}", f"{view.shift:.9g}")
        meaning = (placement.source_size, placement.source_box, view.kind, *scales)
        part = np.ascontiguousarray(raw[inside], dtype=np.float32)
        steady = raw.astype(np.float32)
        steady[inside] = self._stabilizer.update(image[inside], part, view=meaning, time_s=time_s)
        return {**maps, OutputRole.DEPTH: steady}, self._stabilizer.num_frames
