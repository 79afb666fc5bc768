"""From a log of pictures to a log of depth: one pass over the messages, with a few frames in flight."""

from __future__ import annotations

import queue
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mvde.errors import ImageError, LogError, UsageError
from mvde.robot.camera_info import FrameCamera, frame_camera
from mvde.robot.camera_topics import CameraTopic, first_infos
from mvde.robot.depth_topics import STATIC_TRANSFORMS, DepthTopics, LogFrame, LogOutputs
from mvde.robot.logs import LogMessage, LogReader, LogWriter
from mvde.robot.messages import decode, picture
from mvde.runtime.frame_camera import CameraOf, camera_of

if TYPE_CHECKING:
    from mvde.camera import Camera
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.placement import Fit
    from mvde.runtime.result import DepthResult
    from mvde.runtime.stabilize import Stabilization

_CHUNKS_IN_FLIGHT = 6
"""Batches between reading and writing: one in each of the stream's three stages and one before each."""


@dataclass
class Problems:
    """What was passed over: each kind is reported once, when it first occurs, and counted."""

    report: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        """Count a problem, and report it if it is new."""
        self.counts[text] += 1
        if self.counts[text] == 1:
            self.report(text)

    def check(self) -> None:
        """Raise :class:`LogError` with the number of problems, if there were any."""
        if not self.counts:
            return
        most = [f"{text} ({count}x)" if count > 1 else text for text, count in self.counts.most_common(3)]
        more = f" and {len(self.counts) - 3} more kinds" if len(self.counts) > 3 else ""
        raise LogError(
            f"{sum(self.counts.values())} messages or topics of the log were passed over: {'; '.join(most)}{more}; "
            "all others were written"
        )


def write_depth_log(
    reader: LogReader,
    writer: LogWriter,
    cameras: Sequence[CameraTopic],
    runtime: DepthRuntime,
    outputs: LogOutputs,
    problems: Problems,
    *,
    fit: Fit | None = None,
    camera: CameraOf | None = None,
    stabilize: Stabilization | None = None,
) -> Iterator[DepthResult]:
    """Write depth of these cameras' pictures to a log, and yield each result once it is written.

    Arguments are those of :func:`log_results`. Raises :class:`UsageError` for outputs that this kind of depth cannot
    have.
    """
    copies = _copies(reader, writer, cameras, problems) if outputs.copy_topics else {}
    static = [copies[one.key] for one in reader.topics if one.name == STATIC_TRANSFORMS and one.key in copies]
    topics = DepthTopics(writer, outputs, static[0] if static else None)

    def copy(message: LogMessage) -> None:
        writer.write(copies[message.topic.key], message.log_time_ns, message.publish_time_ns, message.data)

    others = dict.fromkeys(copies, copy)
    results = log_results(
        reader, cameras, runtime, problems, fit=fit, camera=camera, others=others, stabilize=stabilize
    )
    for frame, result in results:
        topics.write(result, frame)
        yield result


def log_results(
    reader: LogReader,
    cameras: Sequence[CameraTopic],
    runtime: DepthRuntime,
    problems: Problems,
    *,
    fit: Fit | None = None,
    camera: CameraOf | None = None,
    others: Mapping[int, Callable[[LogMessage], None]] | None = None,
    stabilize: Stabilization | None = None,
) -> Iterator[tuple[LogFrame, DepthResult]]:
    """Yield each picture of these cameras with its depth, in the order of the log.

    ``camera`` takes the place of the log's CameraInfo. ``others`` are called with the messages of topics of their keys
    as they are read, a few frames ahead of the results. Messages that cannot be decoded are counted in ``problems``.
    ``stabilize`` makes the depth of each camera steady; a picture whose stamp is not after the last one of its camera
    is passed over then, and counted.
    """
    fallback = None if runtime.calibration is None else runtime.calibration.frame_camera
    known = _KnownCameras(first_infos(reader, cameras), cameras, problems, camera, fallback)
    by_key = {topic.key: one for one in cameras for topic in one.topics}
    infos = {topic.key for one in cameras for topic in one.infos}
    others = others or {}
    wanted = [topic for topic in reader.topics if topic.key in {*by_key, *infos, *others}]
    flight = _Flight(runtime, fit, stabilize)
    order = _AnyOrder() if stabilize is None else _StampOrder(problems)
    try:
        for message in reader.messages(wanted):
            key = message.topic.key
            if key in others:
                others[key](message)
            if key in infos:
                known.update(message)
            elif key in by_key and (frame := known.frame(message, by_key[key])) is not None and order.is_next(frame):
                yield from flight.put(frame)
        yield from flight.rest()
    finally:
        flight.close()
    for text in reader.problems:
        problems.add(text)


def _copies(reader: LogReader, writer: LogWriter, cameras: Sequence[CameraTopic], problems: Problems) -> dict[int, int]:
    """Numbers in the output of the topics that it can hold, by their keys."""
    own = tuple(f"{camera.namespace}/{kind}/" for camera in cameras for kind in ("depth", "relative"))
    copies: dict[int, int] = {}
    for topic in reader.topics:
        if topic.name.startswith(own):
            problems.add(f"topic {topic.name} was not copied: depth is written to names that begin so")
            continue
        try:
            copies[topic.key] = writer.add_topic(topic)
        except LogError as error:
            problems.add(f"topic {topic.name} was not copied: {error}")
    return copies


class _KnownCameras:
    """The cameras as known so far, and frames made with them.

    ``given`` takes the place of what the log says, ``fallback`` is used where it says nothing.
    """

    def __init__(
        self,
        first: Mapping[str, Any],
        cameras: Sequence[CameraTopic],
        problems: Problems,
        given: CameraOf | None,
        fallback: Camera | None,
    ) -> None:
        self._given, self._fallback, self._problems = given, fallback, problems
        self._by_info: dict[str, FrameCamera | None] = {}
        self._is_rectified = {topic.name: one.is_rectified for one in cameras for topic in one.infos}
        for name, message in first.items():
            self._take(name, message)

    def update(self, message: LogMessage) -> None:
        """Take a newer CameraInfo."""
        name = message.topic.name
        try:
            self._take(name, decode(message))
        except LogError as error:
            self._problems.add(f"topic {name}: {error}")

    def frame(self, message: LogMessage, topic: CameraTopic) -> LogFrame | None:
        """Frame of a message; ``None``, and a problem, if it cannot be decoded or its camera is of another size."""
        try:
            decoded = decode(message)
            image = picture(decoded)
            camera = self._camera(topic, image.shape[:2])
        except (ImageError, LogError, UsageError) as error:
            self._problems.add(f"topic {topic.name}: a message was passed over: {error}")
            return None
        return LogFrame(topic, image, decoded.header, message.log_time_ns, message.publish_time_ns, camera)

    def _camera(self, topic: CameraTopic, size: tuple[int, int]) -> FrameCamera | None:
        """Camera of frames of ``size`` (H, W). Raises :class:`UsageError` if the one there is is of another size."""
        known = next((self._by_info.get(one.name) for one in topic.infos), None)
        if self._given is None and known is not None:
            known.camera.check_frame(size)
            return known
        camera = camera_of(self._fallback if self._given is None else self._given, size)
        return None if camera is None else FrameCamera(camera, None, topic.is_rectified or camera.distortion is None)

    def _take(self, name: str, message: Any) -> None:
        try:
            self._by_info[name] = frame_camera(message, self._is_rectified[name])
        except UsageError as error:
            self._problems.add(f"topic {name}: {error}")


class _AnyOrder:
    """No order of pictures."""

    def is_next(self, frame: LogFrame) -> bool:
        """Whether a picture may come next: any may."""
        return True


class _StampOrder:
    """The stamps of stabilised cameras' pictures, which must increase for each camera."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._last_s: dict[str, float] = {}

    def is_next(self, frame: LogFrame) -> bool:
        """Whether a picture was taken after the last one of its camera; a problem if not."""
        time_s, last_s = stamp_s(frame), self._last_s.get(frame.topic.name)
        if last_s is not None and time_s <= last_s:
            self._problems.add(
                f"topic {frame.topic.name}: the picture of {time_s:.6f} s was passed over: it comes after that of "
                f"{last_s:.6f} s"
            )
            return False
        self._last_s[frame.topic.name] = time_s
        return True


def stamp_s(frame: LogFrame) -> float:
    """When a picture was taken, in seconds."""
    stamp = frame.header.stamp
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


class _Flight:
    """Frames in flight in a stream of the runtime, which is fed as they come."""

    def __init__(self, runtime: DepthRuntime, fit: Fit | None, stabilize: Stabilization | None) -> None:
        self._most = _CHUNKS_IN_FLIGHT * runtime.info.batch
        self._images: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._cameras: deque[Camera | None] = deque()
        self._frames: deque[LogFrame] = deque()
        self._times: deque[float] = deque()
        self._sources: deque[str] = deque()
        self._results = runtime.stream(
            self._fed(),
            fit,
            camera=lambda size: self._cameras.popleft(),
            stabilize=stabilize,
            times_s=iter(self._times.popleft, None),
            sources=iter(self._sources.popleft, None),
        )

    def put(self, frame: LogFrame) -> Iterator[tuple[LogFrame, DepthResult]]:
        """Add a frame, and yield the oldest one with its result once there are enough in flight."""
        self._cameras.append(None if frame.camera is None else frame.camera.camera)
        self._frames.append(frame)
        self._times.append(stamp_s(frame))
        self._sources.append(frame.topic.name)
        self._images.put(frame.image)
        if len(self._frames) >= self._most:
            yield self._frames.popleft(), next(self._results)

    def rest(self) -> Iterator[tuple[LogFrame, DepthResult]]:
        """Yield the frames that are still in flight."""
        self._images.put(None)
        for result in self._results:
            yield self._frames.popleft(), result

    def close(self) -> None:
        """Stop the stream."""
        self._images.put(None)
        self._results.close()  # type: ignore[attr-defined]  # a generator

    def _fed(self) -> Iterator[Any]:
        while (image := self._images.get()) is not None:
            yield image
