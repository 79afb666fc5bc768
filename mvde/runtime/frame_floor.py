"""Scale from the floor for the frames of one call or stream: their mountings, and what frames without a floor get."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from mvde import native
from mvde.errors import UsageError
from mvde.runtime.floor import FloorScale, FloorStatus, floor_falls, floor_scale
from mvde.runtime.frame_camera import input_camera
from mvde.runtime.masks import kernel_options, masked_map
from mvde.runtime.points import native_rays
from mvde.runtime.result import check_metres

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.calibration.interval_columns import IntervalColumns
    from mvde.camera import Camera
    from mvde.engines.base import Maps
    from mvde.manifest import Manifest
    from mvde.runtime.batches import Prepared, Ran
    from mvde.runtime.fitter import Fitted
    from mvde.runtime.mounting import Mounting
    from mvde.runtime.placement import Box
    from mvde.runtime.view import View

STEADY_GAIN = 0.1
"""Share of a change of scale that a stream of steady depth lets through a frame: a third of a second at 30 a second."""


class FrameFloor:
    """Scale from the floor of the frames of one call or stream, in their order.

    Frames are each on their own, and one without a floor keeps its depth. Where a stabiliser makes depth steady, so
    that frames of a camera share a scale, the floor's is averaged over them and held where there is none, until depth
    begins anew.
    """

    def __init__(
        self,
        manifest: Manifest,
        columns: IntervalColumns,
        mounting: Mounting | None,
        mountings: Iterable[Mounting | None] | None = None,
        scales: dict[Hashable, SteadyScale] | None = None,
    ) -> None:
        """``mounting`` is that of all frames; ``mountings`` has one for each, ``None`` where it is not known.

        ``scales`` are the steady ones of each camera so far, which are continued.

        Raises :class:`UsageError` for either of them where ``columns`` have intervals.
        """
        self._manifest, self._mounting = manifest, mounting
        self._mountings = None if mountings is None else iter(mountings)
        self._scales, self._num_taken = {} if scales is None else scales, 0
        if self.is_on:
            columns.check_floor()

    @property
    def is_on(self) -> bool:
        """Whether frames have a mounting at all."""
        return self._mounting is not None or self._mountings is not None

    def mounted(self, prepared: Prepared) -> Prepared:
        """Return the batch with the mountings of its frames; anchors are metres of their own.

        Raises :class:`UsageError` where the frames outlast the mountings.
        """
        if not self.is_on or prepared.anchors is not None:
            return prepared
        if self._mountings is None:
            return dataclasses.replace(prepared, mountings=[self._mounting] * len(prepared.fitted))
        return dataclasses.replace(prepared, mountings=[self._next() for _ in prepared.fitted])

    def scaled(self, ran: Ran) -> Ran:
        """Return the batch with views that hold the floor's scale.

        Raises :class:`UsageError` for a map without metres, and for a camera that is neither given nor assumed.
        """
        prepared = ran.prepared
        if not prepared.mountings:
            return ran
        started = time.perf_counter()
        frames = zip(ran.maps, prepared.fitted, prepared.views, prepared.mountings, strict=True)
        found = [measured(self._manifest, *frame) for frame in frames]
        if ran.num_steady:
            found = self._steadied(found, ran)
        views = [view.scaled_by(one.scale) for view, one in zip(prepared.views, found, strict=True)]
        spent_ms = (time.perf_counter() - started) * 1e3
        return dataclasses.replace(
            ran,
            prepared=dataclasses.replace(prepared, views=views),
            floors=found,
            steady_ms=ran.steady_ms + spent_ms,
        )

    def _next(self) -> Mounting | None:
        assert self._mountings is not None
        for mounting in self._mountings:
            self._num_taken += 1
            return mounting
        raise UsageError(
            f"mountings ended after {self._num_taken} frames, and there are more; give one for each frame, None where "
            "it is not known"
        )

    def _steadied(self, found: Sequence[FloorScale], ran: Ran) -> list[FloorScale]:
        """Scales of the batch's frames, each with those of its camera before."""
        sources = [one.source for one in ran.prepared.taken] or [None] * len(found)
        return [
            self._scales.setdefault(source, SteadyScale()).update(one, is_anew=age == 1)
            for one, source, age in zip(found, sources, ran.num_steady, strict=True)
        ]


class SteadyScale:
    """Scale of the frames of one stream whose depth is steady."""

    def __init__(self) -> None:
        self._scale, self._num_frames = 1.0, 0

    def update(self, found: FloorScale, *, is_anew: bool) -> FloorScale:
        """Return the scale of the next frame from its own; ``is_anew`` drops those before it."""
        if is_anew:
            self._scale, self._num_frames = 1.0, 0
        if found.status is FloorStatus.USED:
            self._num_frames += 1
            # A mean over the frames there are until the gain is smaller: a bad first frame would stay else.
            self._scale += max(STEADY_GAIN, 1.0 / self._num_frames) * (found.scale - self._scale)
            return dataclasses.replace(found, scale=self._scale)
        if not self._num_frames:
            return found
        return dataclasses.replace(found, status=FloorStatus.HELD, scale=self._scale)


def measured(manifest: Manifest, maps: Maps, fitted: Fitted, view: View, mounting: Mounting | None) -> FloorScale:
    """Scale by the floor of a frame's maps (H, W) of the network; errors are those of :meth:`FrameFloor.scaled`."""
    check_metres(view.kind, "scale from the floor")
    if view.camera is None:
        raise UsageError(
            f"scale from the floor needs the camera of the frame, and {view.kind} assumes none: give --camera or "
            "--fov, or camera= to DepthRuntime.load or infer"
        )
    if mounting is None:
        return FloorScale(FloorStatus.UNKNOWN)
    placement = fitted.placement
    options = kernel_options(maps, manifest, ())
    depth_m = view.apply(masked_map(maps, manifest), placement, manifest.stats_patch, (), **options).depth
    return _in_map(depth_m, input_camera(view.camera, placement), mounting, placement.target_box)


def _in_map(depth_m: NDArray[np.float32], camera: Camera, mounting: Mounting, box: Box) -> FloorScale:
    """Scale of a map of ``camera``, by libmvde if it is installed, with the same bits."""
    if not native.is_available():
        return floor_scale(depth_m, floor_falls(camera, mounting), mounting.height_m, box)
    from mvde.native.floor import floor_scale as native_scale

    found = native_scale(native_rays(camera), dataclasses.astuple(box), dataclasses.astuple(mounting), depth_m)
    return FloorScale(FloorStatus(found.status), found.scale, found.share, found.residual)
