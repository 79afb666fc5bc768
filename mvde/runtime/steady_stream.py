"""Steady depth in a stream: the maps of each frame are stabilised before they become depth and statistics."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mvde import native
from mvde.contract import DepthKind, OutputRole
from mvde.errors import UsageError
from mvde.runtime.batches import Ran, Taken
from mvde.runtime.stabilize import Stabilization, Stabilizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Maps
    from mvde.native.steady import Stabilizer as NativeStabilizer
    from mvde.runtime.fitter import Fitted
    from mvde.runtime.frame_floor import SteadyScale
    from mvde.runtime.view import View


class TimedFrame(NamedTuple):
    """A frame (H, W, 3), uint8 RGB, and when and by which camera it was taken."""

    image: NDArray[np.uint8]
    taken: Taken


def timed(
    frames: Iterable[NDArray[np.uint8]], times_s: Iterable[float] | None, sources: Iterable[Hashable] | None = None
) -> Iterator[TimedFrame]:
    """Yield the frames with their times and the cameras that took them.

    Raises :class:`UsageError` where the frames outlast the times or cameras; what is left over is not read.
    """
    times, cameras = (None if given is None else iter(given) for given in (times_s, sources))
    for number, image in enumerate(frames):
        time_s = None if times is None else _next(times, "times_s", "a time", number)
        source = None if cameras is None else _next(cameras, "sources", "a camera", number)
        yield TimedFrame(image, Taken(time_s, source))


def _next(values: Iterator[Any], name: str, what: str, number: int) -> Any:
    for value in values:
        return value
    raise UsageError(f"{name} ended after {number} frames, and there are more; give {what} for each frame")


def images_of(frames: Sequence[TimedFrame]) -> list[NDArray[np.uint8]]:
    """Pictures of frames."""
    return [one.image for one in frames]


def taken_of(frames: Sequence[TimedFrame]) -> list[Taken]:
    """When and by which cameras frames were taken."""
    return [one.taken for one in frames]


def fastest_stabilizer(kind: DepthKind, settings: Stabilization) -> Stabilizer | NativeStabilizer:
    """Stabiliser of one stream: libmvde's, or NumPy's without the library; both give equal bits."""
    if not native.is_available():
        return Stabilizer(kind, settings)
    from mvde.native.steady import Stabilizer as NativeStabilizer

    return NativeStabilizer(kind, dataclasses.astuple(settings))


class SteadyMaps:
    """The stabilisers of one stream, one for each camera, applied to its batches in their order."""

    def __init__(self, kind: DepthKind, settings: Stabilization) -> None:
        self._kind, self._settings = kind, settings
        self._stabilizers: dict[Hashable, Stabilizer | NativeStabilizer] = {}
        self.scales: dict[Hashable, SteadyScale] = {}  # by the floor, of each camera

    def steadied(self, ran: Ran) -> Ran:
        """Return the batch with steady maps; its statistics are to be computed of them."""
        started, prepared = time.perf_counter(), ran.prepared
        taken = prepared.taken or [Taken()] * len(prepared.fitted)
        frames = zip(prepared.images, ran.maps, prepared.fitted, prepared.views, taken, strict=False)
        done = [self._frame(*frame) for frame in frames]  # the images of a short batch have padding behind them
        spent_ms = (time.perf_counter() - started) * 1e3
        maps, ages = [one for one, _ in done], [age for _, age in done]
        return dataclasses.replace(ran, maps=maps, stats=None, num_steady=ages, steady_ms=spent_ms)

    def _frame(
        self, image: NDArray[np.uint8], maps: Maps, fitted: Fitted, view: View, taken: Taken
    ) -> tuple[Maps, int]:
        """Maps with steady depth in the frame's own part of the network's input, and the frames it goes back."""
        if taken.source not in self._stabilizers:
            self._stabilizers[taken.source] = fastest_stabilizer(self._kind, self._settings)
        stabilizer = self._stabilizers[taken.source]
        placement, raw = fitted.placement, maps[OutputRole.DEPTH]
        inside = placement.target_box.slices
        factor, addend = view.map_unit
        # Nine digits: a camera carried into the input of another resolution differs in the last ones.
        meaning = (placement.source_size, placement.source_box, view.kind, f"{view.scale / factor:.9g}")
        part = in_unit(np.ascontiguousarray(raw[inside], dtype=np.float32), factor, addend)
        steady = raw.astype(np.float32)
        made = stabilizer.update(image[inside], part, view=meaning, time_s=taken.time_s)
        steady[inside] = out_of_unit(made, factor, addend)
        return {**maps, OutputRole.DEPTH: steady}, stabilizer.num_frames


def in_unit(depth: NDArray[np.float32], factor: float, addend: float) -> NDArray[np.float32]:
    """Map (H, W) float32 with its values times ``factor`` plus ``addend``; what is no value, 0 or NaN, stays."""
    if (factor, addend) == (1.0, 0.0):
        return depth
    return np.where(depth > 0, depth * np.float32(factor) + np.float32(addend), depth)


def out_of_unit(depth: NDArray[np.float32], factor: float, addend: float) -> NDArray[np.float32]:
    """Map (H, W) float32 that :func:`in_unit` gives ``depth`` of, but for its rounding."""
    if (factor, addend) == (1.0, 0.0):
        return depth
    return np.where(depth > 0, (depth - np.float32(addend)) / np.float32(factor), depth)
