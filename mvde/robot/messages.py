"""Messages of ROS 2 that mvde reads and writes, in CDR: pictures and cameras in, depth and what belongs to it out.

The types are those of ROS 2 Jazzy through ``rosbags``; the definitions of these messages are the same from Humble on.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import ImageError, LogError
from mvde.image import check_image, decode_image
from mvde.robot.logs import LogMessage, LogTopic
from mvde.robot.logs_rosbags import ros2_types
from mvde.robot.pixels import rgb_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.scan import Scan

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINT_CLOUD, LASER_SCAN = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/LaserScan"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
IMU = "sensor_msgs/msg/Imu"
PICTURES = (IMAGE, COMPRESSED_IMAGE)
"""Types of topics that hold pictures."""

_FLOAT32 = 7
"""PointField.FLOAT32."""
DEPTH_ENCODINGS = ("16UC1", "32FC1", "mono16")
"""Encodings of Image that hold depth."""
_PNG_LEVEL = 1
"""Of zlib: level 6 takes four times as long as 1 (64 and 15 ms at 640x480) for a fifth of the bytes."""
_INVERSE_DEPTH_FORMAT = 0
"""compressed_depth_image_transport's only format; its two parameters belong to 32FC1 and are 0 for 16UC1."""


@lru_cache(maxsize=1)
def store() -> Any:
    """Types of ROS 2, with their codecs."""
    return ros2_types()


def decode(message: LogMessage) -> Any:
    """Decode a message. Raises :class:`LogError` for bytes that are not of its type."""
    topic = message.topic
    if topic.encoding != "cdr":
        raise LogError(f"its messages are {topic.encoding or 'of no encoding'}, and mvde reads CDR (ROS 2)")
    try:
        return store().deserialize_cdr(message.data, topic.msgtype)
    except Exception as error:
        raise LogError(f"it is no {topic.msgtype} ({' '.join(str(error).split()) or type(error).__name__})") from error


def encode(message: Any) -> memoryview:
    """Encode a message in CDR."""
    data: memoryview = store().serialize_cdr(message, message.__msgtype__)
    return data


def new_topic(name: str, msgtype: str, qos: str = "") -> LogTopic:
    """Topic of a type of ROS 2, with definition and hash."""
    schema, _ = store().generate_msgdef(msgtype, ros_version=2)
    return LogTopic(name, msgtype, "cdr", "ros2msg", schema, store().hash_rihs01(msgtype), qos)


def holds_pictures(message: LogMessage) -> bool:
    """Whether a message of one of :data:`PICTURES` is of a colour or grey picture, not of depth."""
    try:
        decoded = decode(message)
    except LogError:
        return False
    if message.topic.msgtype == IMAGE:
        return decoded.encoding not in DEPTH_ENCODINGS
    return "compressedDepth" not in decoded.format


def picture(decoded: Any) -> NDArray[np.uint8]:
    """RGB (H, W, 3), uint8, of a decoded Image or CompressedImage.

    Raises :class:`ImageError` for what is no colour or grey picture of 8 bits.
    """
    if decoded.__msgtype__ == COMPRESSED_IMAGE:
        if "compressedDepth" in decoded.format:
            raise ImageError(f"the format {decoded.format!r} holds depth, no picture")
        return decode_image(decoded.data.tobytes(), f"message of format {decoded.format!r}")
    size = int(decoded.height), int(decoded.width)
    image = rgb_of(decoded.encoding, size, int(decoded.step), np.ascontiguousarray(decoded.data, np.uint8))
    check_image(image)
    return image


def image_message(header: Any, values: NDArray[Any], encoding: str) -> Any:
    """Build an Image of an array (H, W) of the encoding's dtype, little-endian."""
    height, width = values.shape
    content = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    data = content.view(np.uint8).reshape(-1)
    step = width * values.dtype.itemsize
    return store().types[IMAGE](header, height, width, encoding, 0, step, data)


def compressed_depth_message(header: Any, depth_mm: NDArray[np.uint16]) -> Any:
    """Build a CompressedImage of millimetres (H, W), uint16, as compressed_depth_image_transport does.

    12 bytes of parameters, then a 16-bit PNG.
    """
    from PIL import Image

    stream = BytesIO(struct.pack("<iff", _INVERSE_DEPTH_FORMAT, 0.0, 0.0))
    stream.seek(0, 2)
    Image.fromarray(depth_mm).save(stream, format="PNG", compress_level=_PNG_LEVEL)
    content = np.frombuffer(stream.getvalue(), np.uint8)
    return store().types[COMPRESSED_IMAGE](header, "16UC1; compressedDepth png", content)


def point_cloud_message(header: Any, points: NDArray[np.float32]) -> Any:
    """Build an organised PointCloud2 of points (H, W, 4) as :meth:`mvde.DepthResult.points` gives them with colours."""
    types = store().types
    height, width, num_fields = points.shape
    point_step = num_fields * points.itemsize
    fields = [
        types["sensor_msgs/msg/PointField"](name, index * points.itemsize, _FLOAT32, 1)
        for index, name in enumerate(("x", "y", "z", "rgb")[:num_fields])
    ]
    data = np.ascontiguousarray(points, points.dtype.newbyteorder("<")).view(np.uint8).reshape(-1)
    layout = (False, point_step, width * point_step, data, False)  # little-endian; not dense, since points may be NaN
    return types[POINT_CLOUD](header, height, width, fields, *layout)


def laser_scan_message(header: Any, scan: Scan) -> Any:
    """Build a LaserScan in its level frame; +inf is free and NaN unseen (REP 117), all bearings of one instant."""
    types = store().types
    angles = (scan.angle_min, scan.angle_max, scan.angle_increment)
    ranges = np.ascontiguousarray(scan.ranges, np.float32)
    own = types["std_msgs/msg/Header"](header.stamp, level_frame(header.frame_id))
    return types[LASER_SCAN](own, *angles, 0.0, 0.0, scan.range_min, scan.range_max, ranges, np.zeros(0, np.float32))


def level_transform_message(header: Any, scan: Scan) -> Any:
    """Build a TFMessage of the static transform from the picture's frame to its child, the scan's."""
    types = store().types
    zero = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    rotation = types["geometry_msgs/msg/Quaternion"](*scan.rotation)
    transform = types["geometry_msgs/msg/Transform"](zero, rotation)
    stamped = types["geometry_msgs/msg/TransformStamped"](header, level_frame(header.frame_id), transform)
    return types[TRANSFORMS]([stamped])


def level_frame(frame_id: str) -> str:
    """Name of a scan's frame: that of its pictures, levelled by gravity."""
    return f"{frame_id}_level"
