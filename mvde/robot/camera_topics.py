"""Topics of a log that hold a camera's pictures, and the CameraInfo that belongs to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mvde.errors import LogError, UsageError
from mvde.robot.logs import LogReader, LogTopic
from mvde.robot.messages import CAMERA_INFO, PICTURES, decode, holds_pictures

_TRANSPORTS = ("/compressed",)
_RECTIFIED = "image_rect"


@dataclass(frozen=True)
class CameraTopic:
    """Pictures of one camera: the ``topics`` of its name (several recorders make several), and its CameraInfo."""

    name: str
    topics: tuple[LogTopic, ...]
    infos: tuple[LogTopic, ...]

    @property
    def namespace(self) -> str:
        """Name that the camera's topics begin with, without a slash at the end: ``/front`` of ``/front/image_raw``."""
        return _base(self.name).rpartition("/")[0]

    @property
    def is_rectified(self) -> bool:
        """Whether the topic's name says that its pictures are rectified."""
        return _base(self.name).rpartition("/")[2].startswith(_RECTIFIED)

    @property
    def num_messages(self) -> int | None:
        """Number of pictures in the log, if it counts them."""
        counts = [topic.num_messages for topic in self.topics]
        return None if None in counts else sum(count for count in counts if count is not None)


def camera_topics(reader: LogReader, wanted: Sequence[str], on_problem: Callable[[str], None]) -> list[CameraTopic]:
    """Camera topics of these names, or the log's only one.

    A name that is not there, or not of pictures, is reported to ``on_problem`` if another one is left. Raises
    :class:`UsageError` if the choice is not clear, :class:`LogError` if the log has no pictures.
    """
    by_name: dict[str, list[LogTopic]] = {}
    for topic in reader.topics:
        by_name.setdefault(topic.name, []).append(topic)
    names = [name for name, topics in by_name.items() if any(topic.msgtype in PICTURES for topic in topics)]
    chosen = _chosen(wanted, by_name, names, on_problem) if wanted else [_only(reader, by_name, names)]
    cameras = [
        CameraTopic(name, tuple(topic for topic in by_name[name] if topic.msgtype in PICTURES), _infos(name, by_name))
        for name in chosen
    ]
    _check_distinct(cameras)
    return cameras


def first_infos(reader: LogReader, cameras: Sequence[CameraTopic]) -> dict[str, Any]:
    """First CameraInfo of each of its topics, by name, for the pictures that were recorded before it."""
    found: dict[str, Any] = {}
    topics = [topic for camera in cameras for topic in camera.infos]
    missing = {topic.name for topic in topics}
    for message in reader.messages(topics) if topics else ():
        if message.topic.name not in missing:
            continue
        try:
            found[message.topic.name] = decode(message)
        except LogError:
            continue  # reported when the pictures are read
        missing.discard(message.topic.name)
        if not missing:
            break
    return found


def _chosen(
    wanted: Sequence[str], by_name: dict[str, list[LogTopic]], names: list[str], on_problem: Callable[[str], None]
) -> list[str]:
    """Names that can be taken, each once."""
    problems: list[UsageError | LogError] = []
    for name in dict.fromkeys(wanted):
        if name not in by_name:
            problems.append(UsageError(f"there is no topic {name}; {_those_there(names, by_name)}"))
        elif name not in names:
            kinds = " and ".join(sorted({_kind(topic) for topic in by_name[name]}))
            problems.append(LogError(f"topic {name} is {kinds}, but mvde reads {' and '.join(PICTURES)}"))
    chosen = [name for name in dict.fromkeys(wanted) if name in names]
    if not chosen:
        raise problems[0]
    for problem in problems:
        on_problem(str(problem))
    return chosen


def _only(reader: LogReader, by_name: dict[str, list[LogTopic]], names: list[str]) -> str:
    """The only topic with pictures of colour or grey; those of depth do not count."""
    cameras = [name for name in names if _shows_pictures(reader, by_name[name])] or names
    if len(cameras) == 1:
        return cameras[0]
    if cameras:
        raise UsageError(f"several topics hold pictures: {', '.join(cameras)}; give --topic for each that is meant")
    raise LogError(
        f"no topic holds pictures that mvde can read, {' or '.join(PICTURES)}; {_those_there(names, by_name)}"
    )


def _shows_pictures(reader: LogReader, topics: list[LogTopic]) -> bool:
    """Whether the first message of a topic is a picture; a topic without messages is none."""
    message = next(iter(reader.messages([topic for topic in topics if topic.msgtype in PICTURES])), None)
    return message is not None and holds_pictures(message)


def _infos(name: str, by_name: dict[str, list[LogTopic]]) -> tuple[LogTopic, ...]:
    """CameraInfo beside the pictures, as image_transport has it, or below them, as some drivers do."""
    base = _base(name)
    for place in (base.rpartition("/")[0], base):
        found = tuple(topic for topic in by_name.get(f"{place}/camera_info", ()) if topic.msgtype == CAMERA_INFO)
        if found:
            return found
    return ()


def _base(name: str) -> str:
    """Name without the transport of a compressed topic."""
    for transport in _TRANSPORTS:
        name = name.removesuffix(transport)
    return name


def _check_distinct(cameras: Sequence[CameraTopic]) -> None:
    """Raise :class:`UsageError` if two topics would write to the same names."""
    by_namespace: dict[str, str] = {}
    for camera in cameras:
        if (other := by_namespace.setdefault(camera.namespace, camera.name)) != camera.name:
            raise UsageError(
                f"{other} and {camera.name} are pictures of one camera, and both would be written to "
                f"{camera.namespace}/depth; give one of them"
            )


def _kind(topic: LogTopic) -> str:
    return f"{topic.msgtype or 'of no schema'} ({topic.encoding or 'no encoding'})"


def _those_there(names: list[str], by_name: dict[str, list[LogTopic]]) -> str:
    """What the log holds instead."""
    if names:
        return f"pictures are in {', '.join(names)}"
    kinds = sorted({_kind(topic) for topics in by_name.values() for topic in topics})
    return (
        f"its topics are {', '.join(kinds[:8])}{' and more' if len(kinds) > 8 else ''}" if kinds else "it has no topics"
    )
