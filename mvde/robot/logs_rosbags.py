"""rosbag2 folders and SQLite files, and ROS 1 bags, through the ``rosbags`` package.

Messages of ROS 1 are passed on in CDR, with the definitions of ROS 2, so that everything behind sees one format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvde.errors import LogError, MissingDependencyError
from mvde.robot.logs import METADATA_NAME, LogMessage, LogTopic

_OLD_VERSION, _NEW_VERSION = 8, 9
"""Of rosbag2's metadata: 9 writes QoS profiles as a list, which readers of 8 (Iron and before) do not take."""
_ROS1_NAMES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
"""Types that ROS 2 has under another name."""
_HEADER = "std_msgs/msg/Header"
LATCHED_QOS = """- history: 1
  depth: 1
  reliability: 1
  durability: 1
  deadline: {sec: 9223372036, nsec: 854775807}
  lifespan: {sec: 9223372036, nsec: 854775807}
  liveliness: 1
  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}
  avoid_ros_namespace_conventions: false"""
"""Profile of a topic that late subscribers see too, as /tf_static: transient local. Infinite durations as in rmw."""


class Ros2Reader:
    """A rosbag2 folder with SQLite or MCAP storage, compressed or not, or a SQLite file without its metadata."""

    def __init__(self, path: Path) -> None:
        """Open the log and list its topics."""
        rosbags = _library()
        self._path, self._problems = path, list[str]()
        try:
            self._reader = rosbags.Reader2(path)
            self._reader.open()
        except Exception as error:
            raise _unreadable(path, error) from error
        self._connections = {connection.id: connection for connection in self._reader.connections}
        self._topics = {key: self._topic(connection) for key, connection in self._connections.items()}

    @property
    def topics(self) -> Sequence[LogTopic]:
        """All topics of the metadata."""
        return list(self._topics.values())

    @property
    def problems(self) -> Sequence[str]:
        """Where reading broke off."""
        return self._problems

    def messages(self, topics: Sequence[LogTopic]) -> Iterator[LogMessage]:
        """Iterate over messages, by the time they were recorded."""
        self._problems.clear()
        wanted = [self._connections[topic.key] for topic in topics]
        if not wanted:
            return
        try:
            for connection, time_ns, data in self._reader.messages(wanted):
                yield LogMessage(self._topics[connection.id], time_ns, time_ns, data)
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001 - as when opening
            self._problems.append(f"{self._path} breaks off: {_one_line(error)}; what is before it is read")

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _topic(self, connection: Any) -> LogTopic:
        rosbags = _library()
        formats = {rosbags.Format.MSG: "ros2msg", rosbags.Format.IDL: "ros2idl"}
        return LogTopic(
            connection.topic,
            connection.msgtype,
            connection.ext.serialization_format,
            formats.get(connection.msgdef.format, ""),
            connection.msgdef.data,
            connection.digest or "",
            _text_of_qos(connection.ext.offered_qos_profiles),
            connection.msgcount,
            connection.id,
        )


class Ros1Reader:
    """A ROS 1 bag, its messages converted to CDR; topics whose types cannot be converted are left out."""

    def __init__(self, path: Path) -> None:
        """Open the bag and list its topics."""
        rosbags = _library()
        self._path, self._problems, self._refused = path, list[str](), list[str]()
        try:
            self._reader = rosbags.Reader1(path)
            self._reader.open()
        except Exception as error:
            raise _unreadable(path, error) from error
        self._types = rosbags.ros2_types()
        self._topics: dict[int, LogTopic] = {}
        self._converters: dict[int, Callable[[bytes], memoryview]] = {}
        for connection in self._reader.connections:
            try:
                self._add(connection)
            except Exception as error:  # noqa: BLE001 - a definition that does not parse
                self._refused.append(
                    f"topic {connection.topic}: {connection.msgtype} cannot be converted to ROS 2 ({_one_line(error)})"
                )

    @property
    def topics(self) -> Sequence[LogTopic]:
        """All topics that can be converted."""
        return list(self._topics.values())

    @property
    def problems(self) -> Sequence[str]:
        """Topics and messages that cannot be converted, and where reading broke off."""
        return [*self._refused, *self._problems]

    def messages(self, topics: Sequence[LogTopic]) -> Iterator[LogMessage]:
        """Iterate over messages, by the time they were recorded."""
        self._problems.clear()
        wanted = {topic.key for topic in topics}
        connections = [one for one in self._reader.connections if one.id in wanted]
        if not connections:
            return
        failed = Counter[str]()
        try:
            for connection, time_ns, data in self._reader.messages(connections):
                try:
                    converted = self._converters[connection.id](data)
                except Exception as error:  # noqa: BLE001 - bytes of another type
                    failed[f"topic {connection.topic}: messages cannot be converted ({_one_line(error)})"] += 1
                    continue
                yield LogMessage(self._topics[connection.id], time_ns, time_ns, converted)
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001 - as when opening
            self._problems.append(f"{self._path} breaks off: {_one_line(error)}; what is before it is read")
        self._problems += [f"{text}, {count} times" for text, count in failed.items()]

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _add(self, connection: Any) -> None:
        """Add a topic with its definition in ROS 2."""
        rosbags, types = _library(), self._types
        msgtype = _ROS1_NAMES.get(connection.msgtype, connection.msgtype)
        found = rosbags.parse(connection.msgdef.data, connection.msgtype)
        found[msgtype] = found.pop(connection.msgtype)
        types.register(
            {name: fields for name, fields in found.items() if name != _HEADER and name not in types.fielddefs}
        )
        source = rosbags.empty_types()
        source.register(found)
        if not rosbags.is_same_wireformat(source, types, msgtype, msgtype):
            raise LogError("its fields differ from those of the type of that name in ROS 2")
        self._converters[connection.id] = lambda data: types.ros1_to_cdr(data, msgtype)
        schema, _ = types.generate_msgdef(msgtype, ros_version=2)
        qos = LATCHED_QOS if connection.ext.latching else ""
        described = (msgtype, "cdr", "ros2msg", schema, types.hash_rihs01(msgtype), qos)
        self._topics[connection.id] = LogTopic(connection.topic, *described, connection.msgcount, connection.id)


class Ros2Writer:
    """A rosbag2 folder, in storage and metadata version of the log it is made from."""

    def __init__(self, path: Path, source: Path) -> None:
        """Create the folder."""
        rosbags = _library()
        self._library = rosbags
        storage, version = _form_of(source)
        plugin = rosbags.StoragePlugin.SQLITE3 if storage == "sqlite3" else rosbags.StoragePlugin.MCAP
        self._writer = rosbags.Writer2(path, version=version, storage_plugin=plugin)
        self._writer.open()

    def add_topic(self, topic: LogTopic) -> int:
        """Add a connection; messages are CDR of a type whose definition is known."""
        if topic.encoding != "cdr":
            raise LogError(f"its messages are {topic.encoding or 'of no encoding'}, and a rosbag2 folder holds CDR")
        try:
            schema, digest = self._definition(topic)
            connection = self._writer.add_connection(
                topic.name, topic.msgtype, msgdef=schema, rihs01=digest, offered_qos_profiles=_profiles_of(topic.qos)
            )
        except LogError:
            raise
        except Exception as error:
            raise LogError(f"rosbag2 does not take it: {_one_line(error)}") from error
        number: int = connection.id
        return number

    def write(self, number: int, log_time_ns: int, publish_time_ns: int, data: bytes | memoryview) -> None:
        """Append a message; the folder keeps one time for it, that of recording."""
        self._writer.write(self._writer.connections[number - 1], log_time_ns, data)

    def describe(self, facts: Mapping[str, str]) -> None:
        """Store the facts as custom data of the metadata."""
        for key, text in facts.items():
            self._writer.set_custom_data(f"mvde_{key}", text)

    def close(self) -> None:
        """Write the metadata."""
        self._writer.close()

    def abort(self) -> None:
        """Close the storage without metadata."""
        storage = getattr(self._writer, "storage", None)
        if storage is not None and hasattr(storage, "abort"):
            storage.abort()

    def _definition(self, topic: LogTopic) -> tuple[str, str]:
        """Text and hash of a type: from the log, or of the type of that name in ROS 2."""
        schema = topic.schema if isinstance(topic.schema, str) else topic.schema.decode()
        if schema and topic.type_hash:
            return schema, topic.type_hash
        if not schema and topic.msgtype in (known := self._library.ros2_types()).fielddefs:
            text, _ = known.generate_msgdef(topic.msgtype, ros_version=2)
            return text, known.hash_rihs01(topic.msgtype)
        if topic.schema_encoding != "ros2msg":
            raise LogError(
                f"the log states no type hash, and it cannot be computed from {topic.schema_encoding or 'nothing'}"
            )
        types = self._library.empty_types()
        types.register(self._library.parse(schema, topic.msgtype))
        return schema, types.hash_rihs01(topic.msgtype)


class _Library:
    """What is used of the package."""

    def __init__(self) -> None:
        from rosbags.convert.converter import is_same_wireformat
        from rosbags.interfaces import MessageDefinitionFormat
        from rosbags.rosbag1 import Reader as Reader1
        from rosbags.rosbag2 import Reader as Reader2
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2
        from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.Reader1, self.Reader2, self.Writer2 = Reader1, Reader2, Writer2
        self.StoragePlugin, self.Format = StoragePlugin, MessageDefinitionFormat
        self.is_same_wireformat, self.parse = is_same_wireformat, get_types_from_msg
        self.dump_qos, self.parse_qos = dump_qos_v8, parse_qos
        self.ros2_types: Callable[[], Any] = lambda: get_typestore(Stores.ROS2_JAZZY)
        self.empty_types: Callable[[], Any] = lambda: get_typestore(Stores.EMPTY)


def _library() -> _Library:
    """Import the package. Raises :class:`MissingDependencyError` if it is missing or too old."""
    try:
        return _Library()
    except ImportError as error:
        raise MissingDependencyError.for_extra("rosbags", "ros", "reading and writing ROS messages") from error


def ros2_types() -> Any:
    """Store of message types of ROS 2 Jazzy; the sensor messages are those of Humble to Kilted."""
    return _library().ros2_types()


def _form_of(source: Path) -> tuple[str, int]:
    """Storage and metadata version for a log made from ``source``."""
    if source.is_file():
        return ("sqlite3" if source.suffix.lower() == ".db3" else "mcap"), _NEW_VERSION
    text = (source / METADATA_NAME).read_text(encoding="utf-8")  # rosbags has parsed it
    version, storage = (
        re.search(rf"^ +{key}: *[\"']?(\w+)", text, re.MULTILINE) for key in ("version", "storage_identifier")
    )
    is_old = version is not None and version[1].isdecimal() and int(version[1]) < _NEW_VERSION
    return "mcap" if storage is None else storage[1], _OLD_VERSION if is_old else _NEW_VERSION


def _profiles_of(text: str) -> list[Any]:
    """QoS profiles of YAML text; none where it does not parse, since play-back then takes the defaults."""
    try:
        return list(_library().parse_qos(text))
    except Exception:  # noqa: BLE001 - YAML of any form
        return []


def _text_of_qos(profiles: Sequence[Any]) -> str:
    return str(_library().dump_qos(list(profiles))) if profiles else ""


def _unreadable(path: Path, error: Exception) -> LogError:
    if type(error).__module__.partition(".")[0] in ("sqlite3", "apsw"):
        way_out = "SQLite can save what there is: sqlite3 FILE .recover"
    else:
        way_out = "of a folder whose recorder was killed, give the .mcap file in it, or run `ros2 bag reindex`"
    return LogError(f"cannot read the log {path}: {_one_line(error)}; {way_out}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
