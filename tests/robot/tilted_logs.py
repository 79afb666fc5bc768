"""Logs of a tilted camera for tests: transforms and an IMU beside the pictures of a room."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mvde.camera import Camera
from mvde.runtime.mounting import Mounting
from tests.robot import log_files as logs
from tests.runtime.floor_rooms import picture, room_depth

TRANSFORMS, IMU = "tf2_msgs/msg/TFMessage", "sensor_msgs/msg/Imu"
VECTOR, QUATERNION = "float64 x\nfloat64 y\nfloat64 z\n", "float64 x\nfloat64 y\nfloat64 z\nfloat64 w\n"
PARTS = (
    f"{logs.SEPARATOR}MSG: geometry_msgs/Vector3\n{VECTOR}{logs.SEPARATOR}MSG: geometry_msgs/Quaternion\n{QUATERNION}"
)
logs.DEFINITIONS[TRANSFORMS] = (
    f"geometry_msgs/TransformStamped[] transforms\n{logs.SEPARATOR}MSG: geometry_msgs/TransformStamped\n{logs.HEADER}"
    f"string child_frame_id\ngeometry_msgs/Transform transform\n{logs.SEPARATOR}MSG: geometry_msgs/Transform\n"
    f"geometry_msgs/Vector3 translation\ngeometry_msgs/Quaternion rotation\n{PARTS}{logs.NESTED}"
)
logs.DEFINITIONS[IMU] = (
    f"{logs.HEADER}geometry_msgs/Quaternion orientation\nfloat64[9] orientation_covariance\n"
    "geometry_msgs/Vector3 angular_velocity\nfloat64[9] angular_velocity_covariance\n"
    f"geometry_msgs/Vector3 linear_acceleration\nfloat64[9] linear_acceleration_covariance\n{PARTS}{logs.NESTED}"
)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
"""Quaternion (x, y, z, w) of an optical frame in its camera's body, by REP 103."""
CAMERA = Camera(72.0, 72.0, 39.5, 29.5, logs.SIZE)
"""That of the P of :func:`tests.robot.log_files.camera_info`."""

WRONG = 0.8
"""What the tiny engine's depth is of the room's."""


def pitched(degrees: float) -> tuple[float, float, float, float]:
    """Quaternion (x, y, z, w) of a frame that looks down by so many degrees: a rotation about y, which is left."""
    return 0.0, math.sin(math.radians(degrees) / 2), 0.0, math.cos(math.radians(degrees) / 2)


def transform(index: int, parent: str, child: str, rotation: tuple[float, ...]) -> dict[str, Any]:
    """Fields of a TransformStamped."""
    header = {**logs.stamp(index), "frame_id": parent}
    moved = {"translation": {"x": 0.1, "y": 0.2, "z": 0.3}, "rotation": dict(zip("xyzw", rotation, strict=True))}
    return {"header": header, "child_frame_id": child, "transform": moved}


def imu(
    index: int,
    frame: str,
    rotation: tuple[float, ...] | None = None,
    acceleration: tuple[float, float, float] = (0.0, 0.0, 9.81),
) -> dict[str, Any]:
    """Fields of an Imu, without an orientation by default."""
    unknown = [-1.0] + [0.0] * 8
    return {
        "header": {**logs.stamp(index), "frame_id": frame},
        "orientation": dict(zip("xyzw", rotation or (0.0, 0.0, 0.0, 0.0), strict=True)),
        "orientation_covariance": unknown if rotation is None else [0.0] * 9,
        "angular_velocity": dict.fromkeys("xyz", 0.0),
        "angular_velocity_covariance": [0.0] * 9,
        "linear_acceleration": dict(zip("xyz", acceleration, strict=True)),
        "linear_acceleration_covariance": [0.0] * 9,
    }


def room_log(
    path: Path,
    mountings: Sequence[Mounting],
    beside: Callable[[logs.McapLog, int], None] = lambda log, index: None,
    wrong: float = WRONG,
) -> Path:
    """MCAP log with a picture of a room for each mounting; ``beside`` adds to it before each of them."""
    log = logs.McapLog(path)
    for index, mounting in enumerate(mountings):
        beside(log, index)
        log.add("/front/camera_info", "sensor_msgs/msg/CameraInfo", logs.camera_info(index), index)
        pixels = picture(room_depth(CAMERA, mounting) * wrong)
        log.add("/front/image_rect", "sensor_msgs/msg/Image", logs.image(index, pixels=pixels), index)
    return log.finish()
