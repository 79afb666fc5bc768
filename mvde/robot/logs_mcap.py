"""Single MCAP files, read and written through the ``mcap`` package.

The reader takes chunk after chunk, so that its memory does not grow, and gives what there is of a truncated or damaged
file. Messages keep the order of the file.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvde.errors import LogError, MissingDependencyError
from mvde.robot.logs import LogMessage, LogTopic

_MOST_RECORD_BYTES = 1 << 32
"""Of one record; a longer one is a damaged length."""
_LIBRARY = "mvde"
_HASH, _QOS = "topic_type_hash", "offered_qos_profiles"
"""Keys of a channel's metadata, as rosbag2's MCAP storage writes them."""


class McapReader:
    """An MCAP file, indexed or not, complete or not."""

    def __init__(self, path: Path) -> None:
        """Open the file and list its topics; a file without a summary is read through once."""
        self._path, self._problems = path, list[str]()
        self._mcap = _library()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise LogError(f"cannot open {path}: {error.strerror or error}") from error
        try:
            self._check_magic()
            self._summary = self._read_summary()
            self._channels, self._schemas, counts = self._listed()
        except BaseException:
            self._file.close()
            raise
        self._topics = {key: self._topic(key, counts) for key in self._channels}

    @property
    def topics(self) -> Sequence[LogTopic]:
        """All topics, by the number of their channel."""
        return [self._topics[key] for key in sorted(self._topics)]

    @property
    def problems(self) -> Sequence[str]:
        """Damaged chunks, and where the file breaks off."""
        return self._problems

    def messages(self, topics: Sequence[LogTopic]) -> Iterator[LogMessage]:
        """Iterate over messages in the order of the file."""
        wanted = {topic.key for topic in topics}
        self._problems.clear()
        for record in self._records(wanted):
            if isinstance(record, self._mcap.records.Message) and record.channel_id in wanted:
                topic = self._topics[record.channel_id]
                yield LogMessage(topic, record.log_time, record.publish_time, record.data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_magic(self) -> None:
        if self._file.read(8) != b"\x89MCAP0\r\n":
            raise LogError(f"{self._path} is not an MCAP file: it does not begin with MCAP's magic bytes")

    def _read_summary(self) -> Any:
        """Summary of a complete file with an index of its chunks; ``None`` of any other."""
        try:
            summary = self._mcap.reader.make_reader(self._file).get_summary()
        except Exception:  # noqa: BLE001 - whatever the end of a truncated file is mistaken for
            return None
        return summary if summary is not None and summary.chunk_indexes and summary.channels else None

    def _listed(self) -> tuple[dict[int, Any], dict[int, Any], Mapping[int, int]]:
        """Channels and schemas by their numbers, and the number of messages by channel."""
        if (summary := self._summary) is not None:
            counts = summary.statistics.channel_message_counts if summary.statistics else {}
            return dict(summary.channels), dict(summary.schemas), counts
        channels, schemas, counts = {}, {}, Counter[int]()
        for record in self._records(None):
            match type(record).__name__:
                case "Channel":
                    channels[record.id] = record
                case "Schema":
                    schemas[record.id] = record
                case "Message":
                    counts[record.channel_id] += 1
        return channels, schemas, counts

    def _topic(self, key: int, counts: Mapping[int, int]) -> LogTopic:
        channel, schema = self._channels[key], self._schemas.get(self._channels[key].schema_id)
        return LogTopic(
            channel.topic,
            "" if schema is None else schema.name,
            channel.message_encoding,
            "" if schema is None else schema.encoding,
            b"" if schema is None else schema.data,
            channel.metadata.get(_HASH, ""),
            channel.metadata.get(_QOS, ""),
            counts.get(key, 0),
            key,
        )

    def _records(self, wanted: set[int] | None) -> Iterator[Any]:
        """Records of the file in its order; chunks without a wanted channel are passed over where there is an index."""
        for record in self._indexed(wanted) if self._summary and wanted is not None else self._streamed():
            if not isinstance(record, self._mcap.records.Chunk):
                yield record
                continue
            try:
                inner = self._mcap.stream_reader.breakup_chunk(record, validate_crc=True)
            except Exception as error:  # noqa: BLE001 - each decompressor has errors of its own
                self._problems.append(
                    f"a damaged chunk of {len(record.data)} bytes was passed over ({_one_line(error)})"
                )
                continue
            yield from inner

    def _indexed(self, wanted: set[int]) -> Iterator[Any]:
        """Chunks that hold a wanted channel, by the file's index."""
        opcode_and_length = 1 + 8
        for index in sorted(self._summary.chunk_indexes, key=lambda one: one.chunk_start_offset):
            if index.message_index_offsets and wanted.isdisjoint(index.message_index_offsets):
                continue
            try:
                self._file.seek(index.chunk_start_offset + opcode_and_length)
                yield self._mcap.records.Chunk.read(self._mcap.data_stream.ReadDataStream(self._file))
            except Exception as error:  # noqa: BLE001 - an offset into the middle of something else
                self._problems.append(f"a chunk could not be read ({_one_line(error)})")

    def _streamed(self) -> Iterator[Any]:
        """Records one after the other, to the end or to where the file breaks off."""
        self._file.seek(0)
        reader = self._mcap.stream_reader.StreamReader(
            self._file, emit_chunks=True, record_size_limit=_MOST_RECORD_BYTES
        )
        try:
            yield from reader.records
        except Exception as error:  # noqa: BLE001 - struct, end of file, length limits
            place = self._file.tell()
            self._problems.append(
                f"{self._path} breaks off or is damaged near byte {place} ({_one_line(error)}); what is before it was "
                "read"
            )


class McapWriter:
    """An MCAP file of the profile ``ros2``, with index and checksums."""

    def __init__(self, path: Path) -> None:
        """Begin the file."""
        mcap = _library()
        self._file = path.open("xb")
        # Not compressed, as rosbag2 records by default: of 640x480 depth in float32, zstd takes 15 % off the bytes in
        # 4 ms, and lz4 nothing.
        self._writer = mcap.writer.Writer(self._file, compression=mcap.writer.CompressionType.NONE)
        self._writer.start(profile="ros2", library=_LIBRARY)
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._sequences = Counter[int]()

    def add_topic(self, topic: LogTopic) -> int:
        """Register a channel, and its schema once; any encoding is taken."""
        content = topic.schema.encode() if isinstance(topic.schema, str) else topic.schema
        wanted = (topic.msgtype, topic.schema_encoding, content)
        if not topic.msgtype:
            self._schemas[wanted] = 0  # a channel without a schema
        elif wanted not in self._schemas:
            self._schemas[wanted] = self._writer.register_schema(*wanted)
        metadata = {_QOS: topic.qos, _HASH: topic.type_hash} if topic.encoding == "cdr" else {}
        number: int = self._writer.register_channel(
            topic.name, topic.encoding, self._schemas[wanted], {key: text for key, text in metadata.items() if text}
        )
        return number

    def write(self, number: int, log_time_ns: int, publish_time_ns: int, data: bytes | memoryview) -> None:
        """Append a message."""
        self._writer.add_message(number, log_time_ns, data, publish_time_ns, self._sequences[number])
        self._sequences[number] += 1

    def describe(self, facts: Mapping[str, str]) -> None:
        """Add a metadata record."""
        self._writer.add_metadata("mvde", dict(facts))

    def close(self) -> None:
        """Write the index and close the file."""
        self._writer.finish()
        self._file.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()


@dataclasses.dataclass(frozen=True)
class _Library:
    """Modules of the package, imported together."""

    reader: Any
    records: Any
    stream_reader: Any
    data_stream: Any
    writer: Any


def _library() -> _Library:
    """Import the package. Raises :class:`MissingDependencyError` if it is not installed."""
    try:
        from mcap import data_stream, reader, records, stream_reader, writer
    except ImportError as error:
        raise MissingDependencyError.for_extra("mcap", "ros", "reading and writing MCAP files") from error
    return _Library(reader, records, stream_reader, data_stream, writer)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
