"""Logs for tests, written with other libraries than mvde's reader: mcap-ros2-support, and rosbags for folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

STAMP_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
FRAME_ID = "front_optical"
SIZE = (60, 80)
"""(height, width) of the frames."""

HEADER = "std_msgs/Header header\n"
SEPARATOR = "=" * 80 + "\n"
NESTED = (
    f"{SEPARATOR}MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    f"{SEPARATOR}MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
)
DEFINITIONS = {
    "sensor_msgs/msg/Image": f"{HEADER}uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n"
    f"uint8[] data\n{NESTED}",
    "sensor_msgs/msg/CompressedImage": f"{HEADER}string format\nuint8[] data\n{NESTED}",
    "sensor_msgs/msg/CameraInfo": f"{HEADER}uint32 height\nuint32 width\nstring distortion_model\nfloat64[] d\n"
    "float64[9] k\nfloat64[9] r\nfloat64[12] p\nuint32 binning_x\nuint32 binning_y\nsensor_msgs/RegionOfInterest roi\n"
    f"{NESTED}{SEPARATOR}MSG: sensor_msgs/RegionOfInterest\nuint32 x_offset\nuint32 y_offset\nuint32 height\n"
    "uint32 width\nbool do_rectify\n",
    "std_msgs/msg/String": "string data\n",
}


def picture(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """RGB noise (H, W, 3), uint8, of a seed."""
    return np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)


def stamp(index: int) -> dict[str, Any]:
    """Header of a frame."""
    seconds, nanoseconds = divmod(STAMP_NS + index * PERIOD_NS, 10**9)
    return {"stamp": {"sec": seconds, "nanosec": nanoseconds}, "frame_id": FRAME_ID}


def image(index: int, encoding: str = "rgb8", pixels: np.ndarray | None = None) -> dict[str, Any]:
    """Fields of an Image; ``pixels`` are (H, W, ...), uint8, in the order of the encoding."""
    pixels = picture(index) if pixels is None else pixels
    height, width = pixels.shape[:2]
    return {
        "header": stamp(index),
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": pixels[0].nbytes,
        "data": pixels.tobytes(),
    }


def camera_info(
    index: int, focal: float = 70.0, d: tuple[float, ...] = (), size: tuple[int, int] = SIZE
) -> dict[str, Any]:
    """Fields of a CameraInfo whose P has a focal length of 2 pixels more than K."""
    height, width = size
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return {
        "header": stamp(index),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": list(d),
        "k": [focal, 0, cx, 0, focal, cy, 0, 0, 1],
        "r": [1, 0, 0, 0, 1, 0, 0, 0, 1],
        "p": [focal + 2, 0, cx, 0, 0, focal + 2, cy, 0, 0, 0, 1, 0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False},
    }


class McapLog:
    """An MCAP file under construction."""

    def __init__(self, path: Path, **options: Any) -> None:
        from mcap_ros2.writer import Writer

        self.path = path
        self._stream = path.open("wb")
        self.writer = Writer(self._stream, **options)
        self._schemas: dict[str, Any] = {}

    def add(self, topic: str, msgtype: str, message: dict[str, Any], index: int = 0) -> None:
        """Append a message recorded at the time of frame ``index``."""
        if msgtype not in self._schemas:
            self._schemas[msgtype] = self.writer.register_msgdef(msgtype, DEFINITIONS[msgtype])
        time_ns = STAMP_NS + index * PERIOD_NS
        self.writer.write_message(topic, self._schemas[msgtype], message, time_ns + 5, time_ns + 3)

    def finish(self) -> Path:
        """Complete the file."""
        self.writer.finish()
        self._stream.close()
        return self.path


def camera_log(
    path: Path,
    num_frames: int = 3,
    topic: str = "/front/image_rect",
    encoding: str = "rgb8",
    d: tuple[float, ...] = (),
    **options: Any,
) -> Path:
    """MCAP log of one camera with CameraInfo and a topic of text beside it."""
    log = McapLog(path, **options)
    for index in range(num_frames):
        log.add(topic, "sensor_msgs/msg/Image", image(index, encoding), index)
        log.add("/front/camera_info", "sensor_msgs/msg/CameraInfo", camera_info(index, d=d), index)
        log.add("/talk", "std_msgs/msg/String", {"data": f"line {index}"}, index)
    return log.finish()


def decoded(path: Path) -> dict[str, list[Any]]:
    """All messages of an MCAP file by topic, decoded by mcap-ros2-support; every one must decode."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    found: dict[str, list[Any]] = {}
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()], validate_crcs=True)
        for _, channel, message, content in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message, content))
    return found


def pixels_of(message: Any) -> np.ndarray:
    """Array (H, W) of a decoded depth Image."""
    dtype = {"32FC1": "<f4", "16UC1": "<u2"}[message.encoding]
    return np.frombuffer(bytes(message.data), dtype).reshape(message.height, message.width)
