"""Cameras of sensor_msgs/CameraInfo: the one of a frame, and the message of another grid over the same view.

Binning and region of interest are applied as ``image_geometry`` does. Pixel centres have integer coordinates.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.camera import Camera
from mvde.distortion import Distortion
from mvde.errors import UsageError

if TYPE_CHECKING:
    from mvde.runtime.placement import Placement


@dataclass(frozen=True)
class FrameCamera:
    """Camera of a topic's frames, and the CameraInfo message that says so; ``None`` where it came from elsewhere.

    ``is_rectified`` says that the frames have no distortion; P gives the camera then, else K. ``problem`` says why the
    distortion of ``camera`` is left out although the message has some; ``None`` if it is not.
    """

    camera: Camera
    message: Any
    is_rectified: bool
    problem: str | None = None


def frame_camera(message: Any, is_rectified_topic: bool) -> FrameCamera | None:
    """Camera of a CameraInfo; ``None`` of an uncalibrated one, whose K is 0.

    Frames are rectified if their topic says so, or if there is no distortion. Raises :class:`UsageError` for numbers
    that are no camera.
    """
    is_rectified = is_rectified_topic or not np.any(message.d)
    matrix = np.asarray(message.p, np.float64).reshape(3, 4)
    if not is_rectified or matrix[0, 0] == 0:
        matrix = np.asarray(message.k, np.float64).reshape(3, 3)
    if matrix[0, 0] == 0:
        return None
    (x_scale, x_shift), (y_scale, y_shift), size = _window(message)
    fx, fy = float(matrix[0, 0] * x_scale), float(matrix[1, 1] * y_scale)
    cx, cy = float(matrix[0, 2] * x_scale + x_shift), float(matrix[1, 2] * y_scale + y_shift)
    distortion, problem = (None, None) if is_rectified else _distortion(message)
    camera = Camera(fx, fy, cx, cy, size, distortion)
    return FrameCamera(camera, message, is_rectified, problem)


def message_of_camera(camera: Camera, types: Any, header: Any) -> Any:
    """CameraInfo of a camera that was given or assumed."""
    k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1], np.float64)
    p = np.insert(k.reshape(3, 3), 3, 0, axis=1).reshape(-1)
    lens = camera.distortion
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types["sensor_msgs/msg/CameraInfo"](
        header,
        *camera.size,
        "plumb_bob" if lens is None else str(lens.model),
        np.zeros(5) if lens is None else np.array(lens.coefficients, np.float64),
        k,
        np.eye(3).reshape(-1),
        p,
        0,
        0,
        region,
    )


def grid_message(message: Any, placement: Placement, grid: tuple[int, int]) -> Any:
    """CameraInfo of the patch grid (rows, columns) over the network's input, from that of the frame.

    One pixel is one patch. Distortion and rectification act before K and stay as they are; K and P are carried through
    binning, the boxes of the placement and the grid, so that a row's pixel has the ray of its patch's centre.
    """
    source, target = placement.source_box, placement.target_box
    boxes = (
        (source.left, source.size[1], target.left, target.size[1], placement.target_size[1], grid[1]),
        (source.top, source.size[0], target.top, target.size[0], placement.target_size[0], grid[0]),
    )
    windows = _window(message)[:2]
    steps = [_into_grid(*box) for box in boxes]
    total = np.eye(3)
    for axis, ((scale, shift), (outer_scale, outer_shift)) in enumerate(zip(windows, steps, strict=True)):
        total[axis, axis], total[axis, 2] = scale * outer_scale, shift * outer_scale + outer_shift
    k = total @ np.asarray(message.k, np.float64).reshape(3, 3)
    p = total @ np.asarray(message.p, np.float64).reshape(3, 4)
    whole = dataclasses.replace(message.roi, x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    matrices = {"k": k.reshape(-1), "p": p.reshape(-1)}
    size = {"height": grid[0], "width": grid[1], "binning_x": 0, "binning_y": 0}
    return dataclasses.replace(message, **size, **matrices, roi=whole)


def _into_grid(
    start: int, side: int, target_start: int, target_side: int, whole: int, cells: int
) -> tuple[float, float]:
    """Scale and shift from a coordinate in the frame, through both boxes, to one in the grid."""
    scale, cell = target_side / side, cells / whole
    return scale * cell, ((0.5 - start) * scale + target_start) * cell - 0.5


def _window(message: Any) -> tuple[tuple[float, float], tuple[float, float], tuple[int, int]]:
    """Scale and shift along x and along y from the calibrated sensor to the frame, and the frame's size (H, W)."""
    roi = message.roi
    across, down = max(1, message.binning_x), max(1, message.binning_y)
    height, width = roi.height or message.height, roi.width or message.width
    x_offset, y_offset = (roi.x_offset, roi.y_offset) if roi.height and roi.width else (0, 0)
    size = int(height // down), int(width // across)
    return (1 / across, -x_offset / across), (1 / down, -y_offset / down), size


def _distortion(message: Any) -> tuple[Distortion | None, str | None]:
    """Distortion, and why it is left out: depth needs none, points and scans do."""
    try:
        return Distortion.of(message.distortion_model, [float(one) for one in message.d]), None
    except UsageError as error:
        return None, str(error)


def with_header(message: Any, header: Any) -> Any:
    """Return the message with another header."""
    return dataclasses.replace(message, header=header)
