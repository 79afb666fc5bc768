"""Which way is up for a robot's camera: from the transforms of its log, or from an IMU.

Frames are those of REP 103 and REP 105: a camera's optical frame has x right, y down and z forward; the z of ``map``,
``odom``, ``base_footprint`` and ``base_link`` is up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import LogError, UsageError
from mvde.robot.messages import IMU, TRANSFORMS, decode
from mvde.runtime.mounting import Mounting, tilt_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.robot.logs import LogMessage, LogReader, LogTopic

    Doubles = NDArray[np.float64]

UPRIGHT_FRAMES = ("map", "odom", "world", "base_footprint", "base_link")
"""Frames whose z is up; names may have a prefix, as in ``robot/odom``."""
_MOST_AGE_S = 1.0
"""Of what an IMU said, before a picture."""
_SETTLING_S = 0.5
"""Time constant of the mean of accelerations: gravity stays, and the steps of a walking robot do not."""
_GRAVITY_M_S2 = (5.0, 15.0)
"""Accelerations outside are shocks or falls."""
_MOST_PARENTS = 64


class LogAttitude:
    """Up as a log's messages tell it, in the order in which they were recorded.

    An IMU's orientation comes first, then transforms to an upright frame, then the mean of an IMU's accelerations,
    which needs transforms to the camera, or the camera's own frame, like its orientation.
    """

    def __init__(self, reader: LogReader) -> None:
        """Read the static transforms of the whole log.

        Raises :class:`UsageError` if the log has neither transforms nor an IMU.
        """
        self.topics: Sequence[LogTopic] = [one for one in reader.topics if one.msgtype in (TRANSFORMS, IMU)]
        if not self.topics:
            raise UsageError(
                f"the log does not say how the camera is tilted: it has neither transforms ({TRANSFORMS}, as /tf) nor "
                f"an IMU ({IMU}); give --pitch"
            )
        self._transforms = _Transforms()
        self._imus: dict[str, _Imu] = {}
        self.sources: Counter[str] = Counter()
        static = [one for one in self.topics if one.msgtype == TRANSFORMS and one.name.endswith("static")]
        for message in reader.messages(static) if static else ():
            try:
                self.update(message)
            except LogError:
                continue  # reported when it is read again

    def update(self, message: LogMessage) -> None:
        """Take what a message says. Raises :class:`LogError` if it cannot be decoded."""
        decoded = decode(message)
        if message.topic.msgtype == TRANSFORMS:
            self._transforms.update(decoded)
        else:
            self._imus.setdefault(message.topic.name, _Imu()).update(decoded)

    def tilt(self, frame: str, time_s: float) -> tuple[float, float] | None:
        """Pitch and roll in degrees of a camera whose optical frame is ``frame``; ``None`` where they are not known."""
        frame = _name(frame)
        for source, up in self._candidates(frame, time_s):
            if up is not None and (found := tilt_of(up)) is not None:
                self.sources[source] += 1
                return found
        return None

    def mounting(self, frame: str, time_s: float, height_m: float) -> Mounting | None:
        """Mounting of a camera ``height_m`` over the floor, tilted as :meth:`tilt` says."""
        tilt = self.tilt(frame, time_s)
        return None if tilt is None else Mounting(height_m, *tilt)

    def _candidates(self, frame: str, time_s: float) -> Any:
        """Sources and up (3,) in the camera's frame by each, ``None`` where it says nothing; the best one first."""
        for name, imu in self._imus.items():
            yield f"orientation of {name}", self._turned(imu, imu.orientation_up(time_s), frame)
        if (upright := self._transforms.upright_of(frame)) is not None:
            yield f"transforms to {upright[0]}", upright[1]
        for name, imu in self._imus.items():
            yield f"accelerations of {name}", self._turned(imu, imu.acceleration_up(time_s), frame)

    def _turned(self, imu: _Imu, up: Doubles | None, frame: str) -> Doubles | None:
        """Up of an IMU's frame in the camera's."""
        rotation = None if up is None else self._transforms.between(imu.frame, frame)
        return None if rotation is None or up is None else rotation @ up


class _Transforms:
    """Rotations of frames in their parents, the newest of each."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, Doubles]] = {}

    def update(self, message: Any) -> None:
        """Take a TFMessage."""
        for one in message.transforms:
            rotation = rotation_of(one.transform.rotation)
            if rotation is not None:
                self._parents[_name(one.child_frame_id)] = (_name(one.header.frame_id), rotation)

    def upright_of(self, frame: str) -> tuple[str, Doubles] | None:
        """Topmost upright frame above ``frame``, and up (3,) in ``frame``."""
        found = None
        for name, rotation in self._chain(frame):
            if name.rpartition("/")[2] in UPRIGHT_FRAMES:
                found = name, rotation.T[:, 2]
        return found

    def between(self, source: str, target: str) -> Doubles | None:
        """Rotation (3, 3) from ``source`` to ``target``; ``None`` where no transforms connect them."""
        above = dict(self._chain(source))
        for name, rotation in self._chain(target):
            if name in above:
                turned: Doubles = rotation.T @ above[name]
                return turned
        return None

    def _chain(self, frame: str) -> list[tuple[str, Doubles]]:
        """The frame and those above it, with the rotation (3, 3) from it to each."""
        chain: list[tuple[str, Doubles]] = [(frame, np.eye(3))]
        while (parent := self._parents.get(chain[-1][0])) is not None and len(chain) <= _MOST_PARENTS:
            chain.append((parent[0], parent[1] @ chain[-1][1]))
        return chain


class _Imu:
    """What one IMU says of up in its own frame."""

    def __init__(self) -> None:
        self.frame = ""
        self._rotation: Doubles | None = None
        self._mean: Doubles | None = None
        self._time_s = -math.inf

    def update(self, message: Any) -> None:
        """Take an Imu message; the first covariance is -1 where there is no such measurement (REP 145)."""
        stamp = message.header.stamp
        time_s = float(stamp.sec) + float(stamp.nanosec) * 1e-9
        self.frame = _name(message.header.frame_id)
        self._rotation = None if message.orientation_covariance[0] == -1 else rotation_of(message.orientation)
        acceleration = message.linear_acceleration
        now = np.array([acceleration.x, acceleration.y, acceleration.z], np.float64)
        lowest, highest = _GRAVITY_M_S2
        if message.linear_acceleration_covariance[0] != -1 and lowest < float(np.linalg.norm(now)) < highest:
            passed = time_s - self._time_s
            is_new = self._mean is None or not 0 <= passed <= _MOST_AGE_S
            share = 1.0 if is_new else passed / (passed + _SETTLING_S)
            self._mean = now if self._mean is None or is_new else self._mean + share * (now - self._mean)
        self._time_s = time_s

    def orientation_up(self, time_s: float) -> Doubles | None:
        """Up (3,) by the orientation."""
        return None if self._rotation is None or self._is_old(time_s) else self._rotation.T[:, 2]

    def acceleration_up(self, time_s: float) -> Doubles | None:
        """Up (3,), of any length, by the mean acceleration: what keeps an IMU from falling points up."""
        return None if self._is_old(time_s) else self._mean

    def _is_old(self, time_s: float) -> bool:
        return not abs(time_s - self._time_s) <= _MOST_AGE_S


def rotation_of(quaternion: Any) -> Doubles | None:
    """Rotation matrix (3, 3) of a Quaternion message; ``None`` if it is none."""
    x, y, z, w = (float(getattr(quaternion, name)) for name in "xyzw")
    norm = x * x + y * y + z * z + w * w
    if not 0.25 < norm < 4:
        return None
    s = 2 / norm
    return np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )


def _name(frame: str) -> str:
    """Name of a frame without the slash that ROS 1 put before it."""
    return frame.removeprefix("/")
