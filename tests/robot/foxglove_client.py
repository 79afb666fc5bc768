"""A client of Foxglove's WebSocket protocol, of its own: websockets, and protobuf by the schema that the server sends.

Protocol: github.com/foxglove/ws-protocol, docs/spec.md. Binary messages are an opcode (1: message data), the
subscription (uint32), the time in nanoseconds (uint64), and the message.
"""

from __future__ import annotations

import base64
import json
import struct
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple

import pytest

pytest.importorskip("google.protobuf")
pytest.importorskip("websockets")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from websockets.sync.client import connect


class Received(NamedTuple):
    """A message: its topic, its time in nanoseconds, and its content as protobuf message or as decoded JSON."""

    topic: str
    time_ns: int
    content: Any


class FoxgloveClient:
    """A connected viewer."""

    def __init__(self, url: str) -> None:
        self._stack = ExitStack()
        connection = connect(url, subprotocols=["foxglove.sdk.v1"], max_size=None)  # type: ignore[list-item]
        self._socket = self._stack.enter_context(connection)
        self.channels: dict[str, dict[str, Any]] = {}
        self._topics: dict[int, str] = {}
        self._pending: list[bytes] = []

    def __enter__(self) -> FoxgloveClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait_for(self, *topics: str, timeout_s: float = 20) -> None:
        """Read until these topics are advertised."""
        while not set(topics) <= set(self.channels):
            self._read(timeout_s)

    def subscribe(self, *topics: str) -> None:
        """Subscribe to advertised topics."""
        wanted = []
        for topic in topics:
            number = 100 + len(self._topics)
            self._topics[number] = topic
            wanted.append({"id": number, "channelId": self.channels[topic]["id"]})
        self._socket.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))

    def receive(self, timeout_s: float = 20) -> Received:
        """Next message of a subscribed topic."""
        while not self._pending:
            self._read(timeout_s)
        data = self._pending.pop(0)
        opcode, number, time_ns = struct.unpack_from("<BIQ", data)
        assert opcode == 1
        topic = self._topics[number]
        return Received(topic, time_ns, _decoded(self.channels[topic], data[13:]))

    def receive_each(self, *topics: str) -> dict[str, Received]:
        """Next message of each of these topics."""
        found: dict[str, Received] = {}
        while set(topics) > set(found):
            message = self.receive()
            found.setdefault(message.topic, message)
        return found

    def _read(self, timeout_s: float) -> None:
        data = self._socket.recv(timeout=timeout_s)
        if isinstance(data, bytes):
            self._pending.append(data)
            return
        plain = json.loads(data)
        if plain["op"] == "advertise":
            self.channels |= {channel["topic"]: channel for channel in plain["channels"]}


def _decoded(channel: dict[str, Any], content: bytes) -> Any:
    if channel["encoding"] == "json":
        return json.loads(content)
    pool, files = descriptor_pool.DescriptorPool(), descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(base64.b64decode(channel["schema"] + "=="))
    for file in files.file:
        pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(channel["schemaName"]))()
    message.ParseFromString(content)
    return message
