"""Scans of frames: the table of each camera and placement is computed once."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from mvde import native
from mvde.errors import UsageError
from mvde.runtime.frame_camera import input_camera
from mvde.runtime.points import native_rays
from mvde.runtime.result import check_metres
from mvde.runtime.scan import Scan, numpy_scan, scan_of
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import scan_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.runtime.placement import Box, Placement
    from mvde.runtime.view import View

_NUM_TABLES = 8
"""Kept at once, each of 12 bytes a pixel of the network's map: a few cameras."""


class _MapScanner:
    """Scans of the network's maps of one camera and box."""

    def __init__(self, camera: Camera, box: Box, settings: ScanSettings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        if not native.is_available():
            self._table = scan_table(camera, settings, box)
            return
        from mvde.native.scan import Scanner

        resolved = dataclasses.replace(settings, min_height_m=settings.lowest_m)
        self._native = Scanner(native_rays(camera), dataclasses.astuple(box), dataclasses.astuple(resolved))

    def scan(self, depth_m: NDArray[np.float32]) -> Scan:
        """Scan of a map (H, W), float32, in metres."""
        if not native.is_available():
            return scan_of(numpy_scan(depth_m, self._table), self._table)
        with self._lock:  # a scanner counts in memory of its own
            ranges, info = self._native.scan(depth_m), self._native.info
        bounds = (self._settings.range_min_m, self._settings.range_max_m)
        return Scan(ranges, info.angle_min, info.angle_increment, *bounds, info.reach_m, self._settings)


class FrameScanner:
    """Distances by bearing of a runtime's frames. Thread-safe."""

    def __init__(self, settings: ScanSettings) -> None:
        """``settings`` are those of every frame: they share one mounting."""
        self._settings = settings
        self._own = _Tables()

    @classmethod
    def of(cls, settings: ScanSettings | str | Path | None) -> FrameScanner | None:
        """Scanner of settings, or of their file; ``None`` without any.

        Raises :class:`UsageError` for what is neither, and as :meth:`ScanSettings.from_file` does.
        """
        if settings is None:
            return None
        if isinstance(settings, (str, Path)):
            settings = ScanSettings.from_file(settings)
        if not isinstance(settings, ScanSettings):
            raise UsageError(f"scan is {settings!r}: expected a ScanSettings, or the file of one")
        return cls(settings)

    def scan(self, depth_m: NDArray[np.float32], view: View, placement: Placement) -> Scan:
        """Scan of a frame's depth (H, W), float32, at the network's resolution.

        Raises :class:`UsageError` for a map without metres, a camera that is neither given nor assumed, and one that
        sees nothing between the heights of obstacles.
        """
        check_metres(view.kind, "a scan")
        if view.camera is None:
            raise UsageError(
                f"a scan needs the camera of the frame, and {view.kind} assumes none: give camera= to "
                "DepthRuntime.load or infer"
            )
        return self._of_maps(view.camera, placement).scan(depth_m)

    def _of_maps(self, camera: Camera, placement: Placement) -> _MapScanner:
        if self._own.process != os.getpid():  # the parent's locks may be held by threads that do not exist here
            self._own = _Tables()
        own, key = self._own, (camera, placement)
        with own.lock:
            found = own.scanners.pop(key, None)
            if found is None:
                found = _MapScanner(input_camera(camera, placement), placement.target_box, self._settings)
            own.scanners[key] = found
            if len(own.scanners) > _NUM_TABLES:
                own.scanners.popitem(last=False)
        return found


class _Tables:
    """Tables, the least recently used first, and the process that computed them."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.scanners: OrderedDict[tuple[Camera, Placement], _MapScanner] = OrderedDict()
