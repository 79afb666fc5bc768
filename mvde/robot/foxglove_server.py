"""Foxglove WebSocket server: frames, depth, statistics and latency for viewers on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.errors import MissingDependencyError, OutputError
from mvde.robot.viewed import BODY_FRAME, BODY_FROM_OPTICAL, OPTICAL_FRAME, POINT_STEP, SCAN_FRAME, Viewed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.scan import Scan

HOST = "127.0.0.1"
"""Pictures of a camera are for this machine; another one reaches them through ``ssh -L``."""
PORT = 8765
"""Foxglove's own default."""

_BACKLOG = 64
"""Messages kept for a client that reads slowly, the oldest is dropped first: about five frames of all topics. The
library's default of 1024 would hold a gigabyte of 640x480 frames."""
_DESCRIPTION = {"title": "mvde.Description", "type": "object"}
_FLOOR = {"title": "mvde.Floor", "type": "object"}
_LATENCY = {"title": "mvde.Latency", "type": "object"}
_STATISTICS = {"title": "mvde.Statistics", "type": "object"}


class FoxgloveServer:
    """A server that sends each frame to the viewers that subscribed; topics without a subscriber cost nothing.

    Raises :class:`MissingDependencyError` without foxglove-sdk, :class:`OutputError` for a port that cannot be opened.
    """

    def __init__(self, port: int = PORT, point_step: int = POINT_STEP) -> None:
        """Listen on ``port`` of the loopback interface, 0 for a free one; ``point_step`` thins out the points."""
        self._point_step = point_step
        self._library = _Library()
        foxglove = self._library.foxglove
        self._context = foxglove.Context()
        self._channels: dict[str, Any] = {}
        self._subscribed = threading.Event()
        try:
            self._server = foxglove.start_server(
                name="mvde",
                host=HOST,
                port=port,
                context=self._context,
                server_listener=self._library.listener(self._subscribed.set),
                message_backlog_size=_BACKLOG,
            )
        except (RuntimeError, OSError) as error:
            raise OutputError(_why_no_server(port, error)) from error

    @property
    def url(self) -> str:
        """Address for viewers."""
        return f"ws://{HOST}:{self._server.port}"

    def wait_for_subscriber(self, timeout_s: float | None = None) -> bool:
        """Wait until a viewer has subscribed to a topic since the last call; ``False`` after ``timeout_s``."""
        has_one = self._subscribed.wait(timeout_s)
        self._subscribed.clear()
        return has_one

    def show(self, viewed: Viewed) -> None:
        """Send a frame; does not wait for the viewers."""
        stamp = self._library.stamp(viewed.stamp_ns)
        self._show_pictures(viewed, stamp)
        if viewed.has_points:
            points = partial(_point_cloud, stamp=stamp, viewed=viewed, step=self._point_step)
            self._put("/points", "PointCloud", viewed, points)
        if (scan := viewed.result.scan) is not None:
            self._put("/scan", "LaserScan", viewed, lambda types: _laser_scan(types, stamp, scan))
            self._put_json("/description", _DESCRIPTION, viewed, lambda: viewed.result.describe().to_json())
        self._put("/tf", "FrameTransforms", viewed, lambda types: _transforms(types, stamp, scan))
        if viewed.floor is not None:
            self._put_json("/floor", _FLOOR, viewed, lambda: json.dumps(viewed.floor))
        self._put_json("/latency", _LATENCY, viewed, lambda: json.dumps(viewed.latency))
        self._put_json("/statistics", _STATISTICS, viewed, lambda: json.dumps(viewed.statistics, allow_nan=False))

    def close(self) -> None:
        """Stop the server; viewers are disconnected."""
        self._server.stop()

    def _show_pictures(self, viewed: Viewed, stamp: Any) -> None:
        result = viewed.result
        self._put("/image", "RawImage", viewed, lambda types: _image(types, stamp, viewed.image, "rgb8"))
        self._put(
            f"/{viewed.name}/image", "RawImage", viewed, lambda types: _image(types, stamp, result.depth, "32FC1")
        )
        if result.camera is not None:
            self._put("/camera_info", "CameraCalibration", viewed, lambda types: _calibration(types, stamp, viewed))
        for name in result.stat_names:
            patch = partial(_patch, stamp=stamp, viewed=viewed, name=name)
            self._put(f"/{viewed.name}/patch/{name}", "RawImage", viewed, patch)

    def _put(self, topic: str, schema: str, viewed: Viewed, make: Callable[[Any], Any]) -> None:
        """Send the message of one of Foxglove's own schemas, if anybody subscribed to its topic."""
        if topic not in self._channels:
            self._channels[topic] = getattr(self._library.channels, f"{schema}Channel")(topic, context=self._context)
        if self._channels[topic].has_sinks():
            self._channels[topic].log(make(self._library.messages), log_time=viewed.stamp_ns)

    def _put_json(self, topic: str, schema: dict[str, str], viewed: Viewed, make: Callable[[], str]) -> None:
        """Send a JSON text, if anybody subscribed to its topic."""
        if topic not in self._channels:
            self._channels[topic] = self._library.foxglove.Channel(topic, schema=schema, context=self._context)
        if self._channels[topic].has_sinks():
            self._channels[topic].log(make().encode(), log_time=viewed.stamp_ns)


class _Library:
    """The parts of foxglove-sdk that are used; raises :class:`MissingDependencyError` without it."""

    def __init__(self) -> None:
        try:
            import foxglove
            from foxglove import channels, messages
        except ImportError as error:
            raise MissingDependencyError.for_extra("foxglove-sdk", "live", "the server of mvde view") from error
        self.foxglove, self.channels, self.messages = foxglove, channels, messages

    def listener(self, on_subscribed: Callable[[], None]) -> Any:
        """Listener for the server, which calls it in a thread of its own; ``on_subscribed`` for each new topic."""
        from foxglove.websocket import ServerListener

        class Listener(ServerListener):  # type: ignore[misc]  # the library is optional
            def on_subscribe(self, _client: object, _channel: object) -> None:
                on_subscribed()

        return Listener()

    def stamp(self, time_ns: int) -> Any:
        """Foxglove's time of nanoseconds since the Unix epoch."""
        return self.messages.Timestamp(sec=time_ns // 10**9, nsec=time_ns % 10**9)


def _image(types: Any, stamp: Any, pixels: NDArray[Any], encoding: str) -> Any:
    height, width = pixels.shape[:2]
    content = np.ascontiguousarray(pixels)
    return types.RawImage(
        timestamp=stamp,
        frame_id=OPTICAL_FRAME,
        width=width,
        height=height,
        encoding=encoding,
        step=content.nbytes // height,
        data=content.tobytes(),
    )


def _patch(types: Any, *, stamp: Any, viewed: Viewed, name: str) -> Any:
    return _image(types, stamp, viewed.patches[name], "32FC1")


def _point_cloud(types: Any, *, stamp: Any, viewed: Viewed, step: int) -> Any:
    """Coloured points; Foxglove takes colours of four fields, whose bytes are those of the packed one."""
    kinds = types.PackedElementFieldNumericType
    fields = [types.PackedElementField(name=name, offset=4 * k, type=kinds.Float32) for k, name in enumerate("xyz")]
    fields += [
        types.PackedElementField(name=name, offset=12 + k, type=kinds.Uint8)
        for k, name in enumerate(("blue", "green", "red", "alpha"))
    ]
    return types.PointCloud(
        timestamp=stamp,
        frame_id=OPTICAL_FRAME,
        pose=_origin(types),
        point_stride=16,
        fields=fields,
        data=viewed.points(step).tobytes(),
    )


def _calibration(types: Any, stamp: Any, viewed: Viewed) -> Any:
    camera = viewed.result.camera
    assert camera is not None
    lens = camera.distortion
    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    model = "" if lens is None else str(lens.model)
    return types.CameraCalibration(
        timestamp=stamp,
        frame_id=OPTICAL_FRAME,
        width=camera.size[1],
        height=camera.size[0],
        distortion_model="kannala_brandt" if model == "equidistant" else model,  # Foxglove's name for it
        D=[] if lens is None else list(lens.coefficients),
        K=k,
        R=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        P=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
    )


def _laser_scan(types: Any, stamp: Any, scan: Scan) -> Any:
    return types.LaserScan(
        timestamp=stamp,
        frame_id=SCAN_FRAME,
        pose=_origin(types),
        start_angle=scan.angle_min,
        end_angle=scan.angle_max,
        ranges=scan.ranges.tolist(),
        intensities=[],
    )


def _origin(types: Any) -> Any:
    return types.Pose(
        position=types.Vector3(x=0.0, y=0.0, z=0.0), orientation=types.Quaternion(x=0.0, y=0.0, z=0.0, w=1.0)
    )


def _transforms(types: Any, stamp: Any, scan: Scan | None) -> Any:
    """The camera's optical frame in its body's, so that viewers show it upright, and the scan's in the optical one."""
    found = [_rotated(types, stamp, BODY_FRAME, OPTICAL_FRAME, BODY_FROM_OPTICAL)]
    if scan is not None:
        found.append(_rotated(types, stamp, OPTICAL_FRAME, SCAN_FRAME, scan.rotation))
    return types.FrameTransforms(transforms=found)


def _rotated(types: Any, stamp: Any, parent: str, child: str, quaternion: tuple[float, float, float, float]) -> Any:
    """Transform of a child at its parent's origin, turned by ``quaternion`` (x, y, z, w)."""
    x, y, z, w = quaternion
    return types.FrameTransform(
        timestamp=stamp,
        parent_frame_id=parent,
        child_frame_id=child,
        translation=types.Vector3(x=0.0, y=0.0, z=0.0),
        rotation=types.Quaternion(x=x, y=y, z=z, w=w),
    )


def _why_no_server(port: int, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "in use" in text.lower():
        return (
            f"port {port} of {HOST} is in use, perhaps by another `mvde view`; give another with --port, or --port 0 "
            "for a free one"
        )
    return f"cannot listen on port {port} of {HOST}: {text}; give another with --port, or --port 0 for a free one"
