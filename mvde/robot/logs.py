"""Logs of a robot: what every format of them gives and takes, and which one a path is.

Messages are passed on as they are stored, CDR in ROS 2; :mod:`mvde.robot.messages` decodes those that mvde needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from mvde.errors import LogError, UsageError
from mvde.files import scratch_folder

MCAP_SUFFIX, ROS1_SUFFIX, SQLITE_SUFFIX = ".mcap", ".bag", ".db3"
METADATA_NAME = "metadata.yaml"
"""File that makes a folder a rosbag2 log."""
_METADATA_KEY = b"rosbag2_bagfile_information"


@dataclass(frozen=True)
class LogTopic:
    """A topic of a log, with the schema its messages are written in.

    ``msgtype`` is the type's name in ROS 2 notation, ``sensor_msgs/msg/Image``; ``encoding`` is that of the messages
    (``cdr``, ``json``, ``protobuf``) and ``schema_encoding`` that of ``schema`` (``ros2msg``, ``ros2idl``, ...).
    ``type_hash`` is the type's hash by REP 2016, empty if the log does not state it. ``qos`` holds the offered
    profiles as rosbag2 writes them, YAML. ``num_messages`` is ``None`` where the log does not count them. ``key`` tells
    topics of one name in the log apart.
    """

    name: str
    msgtype: str
    encoding: str = "cdr"
    schema_encoding: str = "ros2msg"
    schema: str | bytes = ""
    type_hash: str = ""
    qos: str = ""
    num_messages: int | None = None
    key: int = 0


class LogMessage(NamedTuple):
    """A message as it is stored, with the times in nanoseconds at which it was recorded and published."""

    topic: LogTopic
    log_time_ns: int
    publish_time_ns: int
    data: bytes | memoryview


class LogReader(Protocol):
    """An open log."""

    @property
    def topics(self) -> Sequence[LogTopic]:
        """All topics, in the order of the log."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What could not be read so far, a line each; complete once the messages were read."""
        ...

    def messages(self, topics: Sequence[LogTopic]) -> Iterator[LogMessage]:
        """Iterate over the messages of these topics in the order of the log; several times, but one at a time."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class LogWriter(Protocol):
    """A log that is being written."""

    def add_topic(self, topic: LogTopic) -> int:
        """Add a topic and return its number. Raises :class:`LogError` if the format cannot hold its messages."""
        ...

    def write(self, number: int, log_time_ns: int, publish_time_ns: int, data: bytes | memoryview) -> None:
        """Append a message to the topic of that number."""
        ...

    def describe(self, facts: Mapping[str, str]) -> None:
        """Store facts about the log as metadata of the name ``mvde``."""
        ...

    def close(self) -> None:
        """Complete the log."""
        ...

    def abort(self) -> None:
        """Close the files without completing the log."""
        ...


def is_log(path: Path) -> bool:
    """Whether a path has the form of a log: a suffix of one, or a folder with rosbag2's metadata or storage files."""
    if not path.is_dir():
        return path.suffix.lower() in (MCAP_SUFFIX, ROS1_SUFFIX, SQLITE_SUFFIX)
    return _is_rosbag2(path) or bool(storage_files(path))


def _is_rosbag2(folder: Path) -> bool:
    """Whether the metadata of a folder, if it has any, is rosbag2's."""
    try:
        with (folder / METADATA_NAME).open("rb") as stream:
            return _METADATA_KEY in stream.read(1 << 12)
    except OSError:
        return False


def storage_files(folder: Path) -> list[Path]:
    """MCAP and SQLite files of a folder, in order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (MCAP_SUFFIX, SQLITE_SUFFIX))


def open_log(path: Path) -> LogReader:
    """Open an MCAP file, a rosbag2 folder or SQLite file, or a ROS 1 bag.

    Raises :class:`LogError` for a log that cannot be read at all, :class:`MissingDependencyError` without the extra.
    """
    from mvde.robot.logs_mcap import McapReader
    from mvde.robot.logs_rosbags import Ros1Reader, Ros2Reader

    if not path.exists():
        raise LogError(f"there is no log {path}; give an .mcap file, a rosbag2 folder or a ROS 1 .bag")
    if path.is_dir() and not (path / METADATA_NAME).is_file():
        parts = ", ".join(part.name for part in storage_files(path))
        raise LogError(
            f"{path} lacks {METADATA_NAME}, as after a recorder that was killed; give a file in it ({parts}), or write "
            f"the metadata with `ros2 bag reindex {path}`"
        )
    match path.suffix.lower() if path.is_file() else "":
        case ".mcap":
            return McapReader(path)
        case ".bag":
            return Ros1Reader(path)
        case _:
            return Ros2Reader(path)


@contextlib.contextmanager
def new_log(path: Path, source: Path) -> Iterator[LogWriter]:
    """Yield a writer of a log that appears as ``path`` when the block succeeds, and not at all otherwise.

    A path that ends in ``.mcap`` becomes one file, any other a rosbag2 folder, in storage and version as ``source`` if
    that is one too. Raises :class:`UsageError` if ``path`` exists: no log is ever overwritten.
    """
    from mvde.robot.logs_mcap import McapWriter
    from mvde.robot.logs_rosbags import Ros2Writer

    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists, and logs are not overwritten; give another --out, or remove it first")
    with scratch_folder(path.parent, path.name) as scratch:
        part = scratch / path.name
        writer: LogWriter = McapWriter(part) if path.suffix.lower() == MCAP_SUFFIX else Ros2Writer(part, source)
        try:
            yield writer
        except BaseException:
            writer.abort()
            raise
        writer.close()
        if path.exists():
            raise UsageError(f"{path} was written by another program meanwhile; nothing was overwritten")
        part.rename(path)
