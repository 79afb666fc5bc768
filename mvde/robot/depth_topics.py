"""Topics that mvde writes beside a camera's: depth, its camera, the patch statistics, and what follows from them.

``depth/image_rect`` of rectified frames and ``depth/image_raw`` of others, in metres (REP 118: 32FC1, or 16UC1 in
millimetres), with ``depth/camera_info``; ``depth/patch/NAME``, a 32FC1 image of each statistic with one pixel for each
patch, with ``depth/patch/camera_info``. Depth without a unit goes to ``relative/image`` and ``relative/patch/NAME``. On
request there are ``depth/points``, and ``depth/scan`` with its frame in ``/tf_static``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvde.errors import UsageError
from mvde.robot.camera_info import FrameCamera, grid_message, message_of_camera, with_header
from mvde.robot.camera_topics import CameraTopic
from mvde.robot.depth_encoding import DepthEncoding
from mvde.robot.logs import LogWriter
from mvde.robot.logs_rosbags import LATCHED_QOS
from mvde.robot.messages import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    LASER_SCAN,
    POINT_CLOUD,
    TRANSFORMS,
    compressed_depth_message,
    encode,
    image_message,
    laser_scan_message,
    level_transform_message,
    new_topic,
    point_cloud_message,
    store,
)
from mvde.robot.patches import patch_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.runtime.result import DepthResult
    from mvde.runtime.scan import Scan

STATIC_TRANSFORMS = "/tf_static"
"""Topic of transforms that do not change, the same for all of a robot."""


@dataclass(frozen=True)
class LogFrame:
    """A picture of a log, RGB (H, W, 3) uint8, with header and times of its message and its camera, if known."""

    topic: CameraTopic
    image: NDArray[np.uint8]
    header: Any
    log_time_ns: int
    publish_time_ns: int
    camera: FrameCamera | None

    @property
    def is_rectified(self) -> bool:
        """Whether the picture has no distortion, as far as the log says."""
        return self.topic.is_rectified if self.camera is None else self.camera.is_rectified


@dataclass(frozen=True)
class LogOutputs:
    """What is written: the ``encoding`` of depth, points of every ``point_step``-th row and column, and copies."""

    encoding: DepthEncoding = DepthEncoding.FLOAT
    point_step: int | None = None
    copy_topics: bool = False


class DepthTopics:
    """Writes results to topics beside their cameras'; each topic is added when its first message is written.

    ``static_transforms`` is the number of the log's own topic of that name, if it is copied.
    """

    def __init__(
        self, writer: LogWriter, outputs: LogOutputs | None = None, static_transforms: int | None = None
    ) -> None:
        self._writer, self._outputs = writer, outputs or LogOutputs()
        self._numbers: dict[str, int] = {} if static_transforms is None else {STATIC_TRANSFORMS: static_transforms}
        self._levelled: set[str] = set()

    def write(self, result: DepthResult, frame: LogFrame) -> None:
        """Write all messages of a frame.

        Raises :class:`UsageError` for millimetres and points of depth that is not in metres, and for points and scans
        of a camera whose rays are not known.
        """
        is_metric = result.unit == "m"
        place = f"{frame.topic.namespace}/{'depth' if is_metric else 'relative'}"
        name = ("image_rect" if frame.is_rectified else "image_raw") if is_metric else "image"
        info = _info_of(result, frame)
        self._write_depth(f"{place}/{name}", result, frame)
        if info is not None:
            self._put(f"{place}/camera_info", CAMERA_INFO, info, frame)
            grid = with_header(grid_message(info, result.placement, result.grid), frame.header)
            self._put(f"{place}/patch/camera_info", CAMERA_INFO, grid, frame)
        for column, values in patch_images(result).items():
            self._put(f"{place}/patch/{column}", IMAGE, image_message(frame.header, values, "32FC1"), frame)
        if (step := self._outputs.point_step) is not None:
            _check_rays(result, frame, "points need")
            points = result.points(step, frame.image)
            self._put(f"{place}/points", POINT_CLOUD, point_cloud_message(frame.header, points), frame)
        if result.scan is not None:
            _check_rays(result, frame, "a scan needs")
            self._write_scan(f"{place}/scan", result.scan, frame)

    def _write_scan(self, name: str, scan: Scan, frame: LogFrame) -> None:
        """Write a scan, and the transform to its frame before the first one."""
        if frame.header.frame_id not in self._levelled:
            self._levelled.add(frame.header.frame_id)
            self._put(STATIC_TRANSFORMS, TRANSFORMS, level_transform_message(frame.header, scan), frame, LATCHED_QOS)
        self._put(name, LASER_SCAN, laser_scan_message(frame.header, scan), frame)

    def _write_depth(self, name: str, result: DepthResult, frame: LogFrame) -> None:
        match self._outputs.encoding:
            case DepthEncoding.FLOAT:
                self._put(name, IMAGE, image_message(frame.header, result.depth, "32FC1"), frame)
            case DepthEncoding.MILLIMETRES:
                self._put(name, IMAGE, image_message(frame.header, result.millimetres(), "16UC1"), frame)
            case DepthEncoding.COMPRESSED:
                message = compressed_depth_message(frame.header, result.millimetres())
                self._put(f"{name}/compressedDepth", COMPRESSED_IMAGE, message, frame)

    def _put(self, name: str, msgtype: str, message: Any, frame: LogFrame, qos: str = "") -> None:
        """Write a message with the times of the frame's."""
        if name not in self._numbers:
            self._numbers[name] = self._writer.add_topic(new_topic(name, msgtype, qos))
        self._writer.write(self._numbers[name], frame.log_time_ns, frame.publish_time_ns, encode(message))


def _check_rays(result: DepthResult, frame: LogFrame, who: str) -> None:
    """Raise :class:`UsageError` unless the rays of the frame's pixels are known."""
    if frame.camera is not None and frame.camera.problem is not None:
        raise UsageError(f"{frame.topic.name}: {who} each pixel's ray, but the {frame.camera.problem}")
    if result.camera is None:
        raise UsageError(
            f"{frame.topic.name}: {who} the camera, and the log has no CameraInfo of it: give --camera or --fov"
        )


def _info_of(result: DepthResult, frame: LogFrame) -> Any:
    """CameraInfo of the frame: the log's with the picture's header, or of the camera given or assumed; or ``None``."""
    if frame.camera is not None and frame.camera.message is not None:
        return with_header(frame.camera.message, frame.header)
    camera = result.camera if frame.camera is None else frame.camera.camera
    return None if camera is None else message_of_camera(camera, store().types, frame.header)
