"""What scale from the floor adds to a frame: the same frames without a mounting and with it, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mvde.bench.distribution import Distribution
from mvde.bench.pacing import Images
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.floor import FloorStatus
from mvde.runtime.frame_camera import CameraOf
from mvde.runtime.mounting import Mounting
from mvde.runtime.placement import Fit


@dataclass(frozen=True)
class FloorCost:
    """What the floor adds to a frame's postprocessing, and in how many of the frames it was found.

    ``added`` are differences of two measurements, so that single ones may be below 0.
    """

    added: Distribution
    num_frames: int
    num_used: int


class FloorRun:
    """One engine's frames without and with the floor, interleaved with other engines."""

    def __init__(
        self, runtime: DepthRuntime, images: Images, fit: Fit | None, mounting: Mounting, camera: CameraOf | None = None
    ) -> None:
        self._runtime, self._images, self._fit = runtime, images, fit
        self._mounting, self._camera = mounting, camera
        self._added_ms: list[float] = []
        self._num_used = 0

    def run(self, duration_s: float, on_frame: Callable[[], None]) -> None:
        """Process every image twice, again and again for ``duration_s`` seconds, at least once."""
        ends, is_first = time.perf_counter() + duration_s, True
        while is_first or time.perf_counter() < ends:
            is_first = False
            for image in self._images:
                without = self._runtime.infer(image, self._fit, camera=self._camera)
                scaled = self._runtime.infer(image, self._fit, camera=self._camera, mounting=self._mounting)
                self._added_ms.append(scaled.timings.post_ms - without.timings.post_ms)
                self._num_used += sum(one.status is FloorStatus.USED for one in scaled.floors)
                on_frame()

    def result(self) -> FloorCost:
        """Return the result over all turns."""
        return FloorCost(Distribution.of(self._added_ms), len(self._added_ms), self._num_used)
