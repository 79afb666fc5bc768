"""Topics that mvde writes beside a camera's: depth, its camera, the patch statistics, and what follows from them.

``depth/image_rect`` of rectified frames and ``depth/image_raw`` of others, in metres (REP 118: 32FC1, or 16UC1 in
millimetres), with ``depth/camera_info``; ``depth/patch/NAME``, a 32FC1 image of each statistic with one pixel for each
patch, with ``depth/patch/camera_info``. Depth without a unit goes to ``relative/image`` and ``relative/patch/NAME``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvde.robot.camera_info import FrameCamera, grid_message, message_of_camera, with_header
from mvde.robot.camera_topics import CameraTopic
from mvde.robot.depth_encoding import DepthEncoding
from mvde.robot.logs import LogWriter
from mvde.robot.messages import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    compressed_depth_message,
    encode,
    image_message,
    new_topic,
    store,
)
from mvde.robot.patches import patch_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.runtime.result import DepthResult


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


class DepthTopics:
    """Writes results to topics beside their cameras'; each topic is added when its first message is written."""

    def __init__(self, writer: LogWriter, encoding: DepthEncoding = DepthEncoding.FLOAT) -> None:
        self._writer, self._encoding = writer, encoding
        self._numbers: dict[str, int] = {}

    def write(self, result: DepthResult, frame: LogFrame) -> None:
        """Write all messages of a frame.

        Raises :class:`UsageError` for millimetres of depth that is not in metres.
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

    def _write_depth(self, name: str, result: DepthResult, frame: LogFrame) -> None:
        match self._encoding:
            case DepthEncoding.FLOAT:
                self._put(name, IMAGE, image_message(frame.header, result.depth, "32FC1"), frame)
            case DepthEncoding.MILLIMETRES:
                self._put(name, IMAGE, image_message(frame.header, result.millimetres(), "16UC1"), frame)
            case DepthEncoding.COMPRESSED:
                message = compressed_depth_message(frame.header, result.millimetres())
                self._put(f"{name}/compressedDepth", COMPRESSED_IMAGE, message, frame)

    def _put(self, name: str, msgtype: str, message: Any, frame: LogFrame) -> None:
        """Write a message with the times of the frame's."""
        if name not in self._numbers:
            self._numbers[name] = self._writer.add_topic(new_topic(name, msgtype))
        self._writer.write(self._numbers[name], frame.log_time_ns, frame.publish_time_ns, encode(message))


def _info_of(result: DepthResult, frame: LogFrame) -> Any:
    """CameraInfo of the frame: the log's with the picture's header, or of the camera given or assumed; or ``None``."""
    if frame.camera is not None and frame.camera.message is not None:
        return with_header(frame.camera.message, frame.header)
    camera = result.camera if frame.camera is None else frame.camera.camera
    return None if camera is None else message_of_camera(camera, store().types, frame.header)
