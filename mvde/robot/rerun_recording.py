"""Recordings for Rerun (.rrd): frames, depth, statistics and latency of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import MissingDependencyError, OutputError, UsageError
from mvde.files import atomic_write
from mvde.robot.viewed import BODY_FROM_OPTICAL, POINT_STEP, Viewed

if TYPE_CHECKING:
    from mvde.runtime.scan import Scan

SUFFIX = ".rrd"
_JPEG_QUALITY = 90
_OPTICAL, _CAMERA, _METRE = "world/optical", "world/optical/camera", 1000.0
_OBSTACLE_M = 0.02
"""Radius at which an obstacle of a scan is drawn."""


class _NoFrameError(Exception):
    """Ends the writing of a recording without a frame, which leaves no file."""


class RerunRecording:
    """A recording that is complete, and at its place, once it is closed; before, the file does not exist.

    Depth in metres is stored in millimetres, uint16, 0 where there is none; other kinds keep their numbers.

    Raises :class:`MissingDependencyError` without rerun-sdk, :class:`UsageError` for a name without .rrd,
    :class:`OutputError` for a file that exists.
    """

    def __init__(self, path: Path, point_step: int = POINT_STEP) -> None:
        """Begin the recording; frames are written as they are shown. ``point_step`` thins out the points."""
        self._point_step = point_step
        if path.suffix != SUFFIX:
            raise UsageError(f"a recording for Rerun is a {SUFFIX} file, but got {path}")
        if path.exists():
            raise OutputError(f"{path} exists, and a recording is not overwritten; give another name, or remove it")
        self._rerun = _library()
        self._recording = self._rerun.RecordingStream("mvde")
        if not self._rerun.is_enabled(recording=self._recording):
            raise OutputError("Rerun is switched off by the variable RERUN; unset it")
        self._num_frames = 0
        self._file = atomic_write(path)
        self._recording.save(str(self._file.__enter__()))
        self._log("world", self._rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def show(self, viewed: Viewed) -> None:
        """Record a frame."""
        self._num_frames += 1
        rerun, result = self._rerun, viewed.result
        self._recording.set_time("frame", sequence=viewed.index)
        self._recording.set_time("time", timestamp=np.datetime64(viewed.stamp_ns, "ns"))
        self._log_camera(viewed)
        self._log(f"{_CAMERA}/image", rerun.Image(viewed.image).compress(jpeg_quality=_JPEG_QUALITY))
        if result.unit == "m":
            self._log(f"{_CAMERA}/depth", rerun.DepthImage(result.millimetres(), meter=_METRE))
        else:
            self._log(f"{_CAMERA}/relative", rerun.Tensor(result.depth, dim_names=("height", "width")))
        if viewed.has_points:
            points = viewed.points(self._point_step)
            colours = points[:, 3].copy().view(np.uint8).reshape(-1, 4)[:, [2, 1, 0]]
            self._log(f"{_OPTICAL}/points", rerun.Points3D(points[:, :3], colors=colours))
        if result.scan is not None:
            self._log_scan(result.scan)
            self._log("description", rerun.TextDocument(str(result.describe())))
        for name, values in viewed.patches.items():
            self._log(f"patch/{name}", rerun.Tensor(values, dim_names=("height", "width")))
        for name, value in viewed.latency.items():
            if value is not None:
                self._log(f"latency/{name}", rerun.Scalars(float(value)))
        for floor in result.floors:
            self._log("floor/scale", rerun.Scalars(floor.scale))
            self._log("floor/share", rerun.Scalars(floor.share))

    def close(self) -> None:
        """Write what is left and move the file to its place; without a frame there is no file."""
        self._recording.flush()
        self._recording.disconnect()
        if self._num_frames:
            self._file.__exit__(None, None, None)
            return
        with contextlib.suppress(_NoFrameError):
            self._file.__exit__(_NoFrameError, _NoFrameError(), None)

    def _log_scan(self, scan: Scan) -> None:
        """Record the obstacles of a scan as points on its level plane, those that are near enough to have a range."""
        rerun, place = self._rerun, f"{_OPTICAL}/scan"
        obstacles = scan.points[np.isfinite(scan.ranges)]
        self._log(place, rerun.Transform3D(quaternion=rerun.Quaternion(xyzw=scan.rotation)))
        self._log(place, rerun.Points3D(np.pad(obstacles, ((0, 0), (0, 1))), radii=_OBSTACLE_M))

    def _log_camera(self, viewed: Viewed) -> None:
        rerun, camera = self._rerun, viewed.result.camera
        self._log(_OPTICAL, rerun.Transform3D(quaternion=rerun.Quaternion(xyzw=BODY_FROM_OPTICAL)))
        if camera is None:
            return
        height, width = camera.size
        self._log(
            _CAMERA,
            rerun.Pinhole(
                focal_length=(camera.fx, camera.fy),
                principal_point=(camera.cx + 0.5, camera.cy + 0.5),  # Rerun's pixel centres are at halves
                width=width,
                height=height,
                camera_xyz=rerun.ViewCoordinates.RDF,
            ),
        )

    def _log(self, place: str, what: Any, *, static: bool = False) -> None:
        self._recording.log(place, what, static=static)


def _library() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise MissingDependencyError.for_extra("rerun-sdk", "rerun", "recording for Rerun") from error
    return rerun
