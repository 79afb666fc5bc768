"""The last stage of a frame: depth of the frame's size, statistics and distances by bearing from the network's maps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mvde.contract import OutputRole
from mvde.native import Postprocessed
from mvde.runtime.masks import kernel_options, mark_invalid, masked_map
from mvde.runtime.result import DepthResult, Timings
from mvde.runtime.view import anchored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.calibration.interval_columns import IntervalColumns
    from mvde.engines.base import Maps
    from mvde.manifest import EngineManifest
    from mvde.runtime.batches import Ran
    from mvde.runtime.fitter import Fitted, FrameFitter
    from mvde.runtime.frame_scanner import FrameScanner
    from mvde.runtime.view import View


class Finisher:
    """Postprocessing of one runtime's frames; ``invalid`` is what depth holds where the network saw nothing."""

    def __init__(
        self,
        manifest: EngineManifest,
        columns: IntervalColumns,
        fitter: FrameFitter,
        scanner: FrameScanner | None,
        invalid: float,
    ) -> None:
        self._manifest, self._columns, self._fitter = manifest, columns, fitter
        self._scanner, self._invalid = scanner, invalid

    def finish(self, ran: Ran, *, parallel: bool = True) -> list[DepthResult]:
        """Return one result per image; the batch's times are divided evenly."""
        started = time.perf_counter()
        prepared = ran.prepared
        manifest, fitted = self._manifest, prepared.fitted
        stats = [None] * len(fitted) if ran.stats is None else ran.stats
        views = prepared.views
        if (anchors := prepared.anchors) is not None:
            views = [anchored(views[0], ran.maps[0][OutputRole.DEPTH], fitted[0].placement, anchors)]
        frames = [self.postprocessed(*frame) for frame in zip(ran.maps, fitted, views, stats, strict=True)]
        mapped = [
            self._fitter.depth_to_source(one.depth, where, self._invalid, parallel=parallel)
            for one, where in zip(frames, fitted, strict=True)
        ]
        scans = [
            None if self._scanner is None else self._scanner.scan(frame.depth, view, where.placement)
            for frame, view, where in zip(frames, views, fitted, strict=True)
        ]
        count = len(fitted)
        timings = Timings(
            prepared.pre_ms / count,
            ran.infer_ms / count,
            (ran.steady_ms + (time.perf_counter() - started) * 1e3) / count,
        )
        grid, names = manifest.grid, self._columns.names
        meanings = [view.meaning(where.placement) for view, where in zip(views, fitted, strict=True)]
        parts = zip(mapped, frames, meanings, scans, ran.histories, strict=True)
        return [
            DepthResult(one, self._columns.of(frame.stats), grid, timings, names, *meaning, scan, *history)
            for one, frame, meaning, scan, history in parts
        ]

    def postprocessed(
        self, maps: Maps, fitted: Fitted, view: View, stats: NDArray[np.float32] | None = None
    ) -> Postprocessed:
        """Depth and statistics of a frame's view; ``stats`` are those of the map if the engine computed them."""
        names, manifest = self._columns.base if stats is None else (), self._manifest
        raw, others = masked_map(maps, manifest), kernel_options(maps, manifest, names)
        found = view.apply(raw, fitted.placement, manifest.stats_patch, names, **others)
        if view.kind.is_inverse:
            mark_invalid(found.depth, maps, manifest)
        return found if stats is None else Postprocessed(found.depth, view.scaled(stats, self._columns.base))
