"""rosbag2 folders and ROS 1 bags in, rosbag2 folders out: written and read by rosbags and SQLite itself."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde import cli
from mvde.errors import LogError
from mvde.robot.logs import LogTopic, is_log, new_log, open_log
from mvde.runtime.depth import DepthRuntime
from tests.robot import log_files as logs

for package in ("openvino", "rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)

HASHES = {
    "sensor_msgs/msg/Image": "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    "sensor_msgs/msg/CameraInfo": "RIHS01_b3dfd68ff46c9d56c80fd3bd4ed22c7a4ddce8c8348f2f59c299e73118e7e275",
}
"""As `ros2 topic info -v` prints them."""
LATCHED = "transient_local"


@lru_cache
def _types(distribution: str) -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores[distribution])


def _message(types: Any, msgtype: str, fields: dict[str, Any]) -> Any:
    """Message of rosbags from plain fields."""
    kind = types.types[msgtype]
    plain = {}
    for name, described in types.fielddefs[msgtype][1]:
        value = fields.get(name, fields.get(name.lower()))
        if isinstance(value, dict):
            value = _message(types, described[1], value)
        elif isinstance(value, bytes):
            value = np.frombuffer(value, np.uint8)
        elif isinstance(value, list):
            value = np.array(value, np.float64)
        elif value is None:
            value = 0  # seq of a header in ROS 1
        plain[name] = value
    return kind(**plain)


def _contents(num_frames: int) -> list[tuple[int, str, str, dict[str, Any]]]:
    """Times, topics, types and fields of a log."""
    found = []
    for index in range(num_frames):
        time_ns = logs.STAMP_NS + index * logs.PERIOD_NS
        found.append((time_ns, "/front/image_rect", "sensor_msgs/msg/Image", logs.image(index)))
        found.append((time_ns + 1, "/front/camera_info", "sensor_msgs/msg/CameraInfo", logs.camera_info(index)))
        found.append((time_ns + 2, "/talk", "std_msgs/msg/String", {"data": f"line {index}"}))
    return found


def ros2_folder(path: Path, storage: str, version: int, num_frames: int = 3, compression: str = "NONE") -> Path:
    """rosbag2 folder of a camera, and a latched topic."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    types, forever = _types("ROS2_HUMBLE"), QosTime(9223372036, 854775807)
    latched = Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, forever, forever,
        QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
    folder = Writer(path, version=version, storage_plugin=StoragePlugin[storage])
    folder.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with folder as writer:
        numbers: dict[str, Any] = {}
        for time_ns, topic, msgtype, fields in _contents(num_frames):
            if topic not in numbers:
                profiles = [latched] if topic == "/talk" else []
                numbers[topic] = writer.add_connection(topic, msgtype, typestore=types, offered_qos_profiles=profiles)
            writer.write(numbers[topic], time_ns, types.serialize_cdr(_message(types, msgtype, fields), msgtype))
    return path


def ros1_bag(path: Path, num_frames: int = 3) -> Path:
    """Bag of ROS 1 of a camera, with a type that ROS 2 does not have."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import get_types_from_msg

    types = _types("ROS1_NOETIC")
    types.register(get_types_from_msg("std_msgs/Header header\nfloat32 charge\n", "own_msgs/msg/Battery"))
    with Writer(path) as writer:
        numbers: dict[str, Any] = {}
        for time_ns, topic, msgtype, fields in _contents(num_frames):
            if topic not in numbers:
                numbers[topic] = writer.add_connection(topic, msgtype, typestore=types, latching=int(topic == "/talk"))
            writer.write(numbers[topic], time_ns, types.serialize_ros1(_message(types, msgtype, fields), msgtype))
        battery = writer.add_connection("/battery", "own_msgs/msg/Battery", typestore=types)
        message = _message(types, "own_msgs/msg/Battery", {"header": logs.stamp(0), "charge": 0.5})
        writer.write(battery, logs.STAMP_NS, types.serialize_ros1(message, "own_msgs/msg/Battery"))
    return path


def depths(path: Path, topic: str = "/front/depth/image_rect") -> list[tuple[int, np.ndarray]]:
    """Times and depth of a rosbag2 folder, read by rosbags with the definitions it holds."""
    from rosbags.highlevel import AnyReader

    found = []
    with AnyReader([path]) as reader:
        chosen = [one for one in reader.connections if one.topic == topic]
        for connection, time_ns, data in reader.messages(chosen):
            message = reader.deserialize(data, connection.msgtype)
            found.append((time_ns, message.data.view("<f4").reshape(message.height, message.width)))
    return found


@pytest.mark.parametrize(("storage", "version"), [("SQLITE3", 8), ("SQLITE3", 9), ("MCAP", 8), ("MCAP", 9)])
def test_a_folder_gives_a_folder_of_its_storage_and_version(robot: Path, storage: str, version: int) -> None:
    from ruamel.yaml import YAML

    ros2_folder(robot / "in", storage, version)
    assert cli.execute(["run", "in", "-o", "out", "--copy-topics"]) == 0
    metadata = YAML(typ="safe").load((robot / "out" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == version
    assert metadata["storage_identifier"] == storage.lower()
    (file_name,) = metadata["relative_file_paths"]
    assert file_name == f"out.{'db3' if storage == 'SQLITE3' else 'mcap'}"
    assert sorted(path.name for path in (robot / "out").iterdir()) == ["metadata.yaml", file_name]
    topics = {one["topic_metadata"]["name"]: one for one in metadata["topics_with_message_count"]}
    assert {topics[name]["message_count"] for name in ("/talk", "/front/depth/image_rect", "/front/image_rect")} == {3}
    for one in topics.values():
        if (msgtype := one["topic_metadata"]["type"]) in HASHES:
            assert one["topic_metadata"]["type_description_hash"] == HASHES[msgtype]
    qos = topics["/talk"]["topic_metadata"]["offered_qos_profiles"]
    if version == 9:
        assert qos[0]["durability"] == LATCHED
    else:
        assert "durability: 1" in qos  # rosbag2 wrote numbers in YAML text before
    assert metadata["custom_data"]["mvde_unit"] == "m"
    with DepthRuntime.load("fp32") as runtime:
        for index, (time_ns, depth) in enumerate(depths(robot / "out")):
            assert time_ns == logs.STAMP_NS + index * logs.PERIOD_NS
            np.testing.assert_array_equal(depth, runtime.infer(logs.picture(index)).depth)


@pytest.mark.parametrize("compression", ["FILE", "MESSAGE"])
@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_compressed_folders_are_read(tmp_path: Path, storage: str, compression: str) -> None:
    plain, packed = (open_log(ros2_folder(tmp_path / kind, storage, 8, 2, kind)) for kind in ("NONE", compression))
    expected, found = (
        [(message.topic.name, message.log_time_ns, bytes(message.data)) for message in one.messages(one.topics)]
        for one in (plain, packed)
    )
    assert len(found) == 6
    assert sorted(found) == sorted(expected)
    plain.close()
    packed.close()


def test_the_database_of_a_folder_is_one_of_rosbag2(robot: Path) -> None:
    ros2_folder(robot / "in", "SQLITE3", 8, 2)
    assert cli.execute(["run", "in", "-o", "out"]) == 0
    with sqlite3.connect(robot / "out" / "out.db3") as database:
        rows = database.execute(
            "SELECT topics.name, topics.type_description_hash, count(*) FROM messages JOIN topics "
            "ON topics.id = messages.topic_id GROUP BY topics.name"
        ).fetchall()
        defined = dict(database.execute("SELECT topic_type, encoding FROM message_definitions").fetchall())
    assert ("/front/depth/image_rect", HASHES["sensor_msgs/msg/Image"], 2) in rows
    assert ("/front/depth/patch/mean", HASHES["sensor_msgs/msg/Image"], 2) in rows
    assert defined == {"sensor_msgs/msg/Image": "ros2msg", "sensor_msgs/msg/CameraInfo": "ros2msg"}


def test_a_single_mcap_file_names_the_type_hashes_as_rosbag2_does(robot: Path) -> None:
    from mcap.reader import make_reader

    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_rect", "sensor_msgs/msg/Image", logs.image(0))
    schema = log.writer.register_msgdef("std_msgs/msg/String", logs.DEFINITIONS["std_msgs/msg/String"])
    qos = {"offered_qos_profiles": "- durability: transient_local\n"}
    log.writer._writer.register_channel("/talk", "cdr", schema.id, qos)
    log.finish()
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", "--copy-topics"]) == 0
    with (robot / "out.mcap").open("rb") as stream:
        reader = make_reader(stream)
        assert reader.get_header().profile == "ros2"
        channels = {channel.topic: channel for channel in reader.get_summary().channels.values()}
    metadata = channels["/front/depth/image_rect"].metadata
    assert metadata == {"topic_type_hash": HASHES["sensor_msgs/msg/Image"]}
    assert channels["/talk"].metadata == qos


def test_a_bag_of_ros1_gives_a_log_of_ros2(robot: Path) -> None:
    ros1_bag(robot / "in.bag")
    assert cli.execute(["run", "in.bag", "-o", "out.mcap", "--copy-topics"]) == 0
    found = logs.decoded(robot / "out.mcap")
    with DepthRuntime.load("fp32") as runtime:
        for index, (record, depth) in enumerate(found["/front/depth/image_rect"]):
            np.testing.assert_array_equal(logs.pixels_of(depth), runtime.infer(logs.picture(index)).depth)
            assert depth.header.frame_id == logs.FRAME_ID
            assert record.log_time == logs.STAMP_NS + index * logs.PERIOD_NS
    assert [message.data for _, message in found["/talk"]] == ["line 0", "line 1", "line 2"]
    assert list(found["/front/camera_info"][0][1].k) == logs.camera_info(0)["k"]
    ((_, battery),) = found["/battery"]
    assert (battery.header.frame_id, battery.charge) == (logs.FRAME_ID, 0.5)


def test_a_bag_of_ros1_becomes_a_folder_too(robot: Path) -> None:
    ros1_bag(robot / "in.bag", 2)
    assert cli.execute(["run", "in.bag", "-o", "out", "--copy-topics"]) == 0
    assert len(depths(robot / "out")) == 2  # AnyReader checks the hash of every type against its definition


def test_a_folder_that_exists_is_left_alone(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ros2_folder(robot / "in", "MCAP", 9, 1)
    before = sorted((path.name, path.read_bytes()) for path in (robot / "in").iterdir())
    assert cli.execute(["run", "in", "-o", "in"]) == 2
    assert cli.execute(["run", "in", "-o", "in/out.mcap"]) == 2
    (robot / "empty").mkdir()
    assert cli.execute(["run", "in", "-o", "empty"]) == 2
    assert "empty exists, and logs are not overwritten" in capsys.readouterr().err
    assert sorted((path.name, path.read_bytes()) for path in (robot / "in").iterdir()) == before


def test_a_folder_whose_recorder_was_killed_says_what_to_do(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ros2_folder(robot / "in", "MCAP", 9, 1)
    (robot / "in" / "metadata.yaml").unlink()
    assert cli.execute(["run", "in", "-o", "out.mcap"]) == 1
    assert "in lacks metadata.yaml, as after a recorder that was killed; give a file in it (in.mcap)" in (
        capsys.readouterr().err
    )
    assert cli.execute(["run", "in/in.mcap", "-o", "out.mcap"]) == 0


def test_a_truncated_database_gives_one_line(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ros2_folder(robot / "in", "SQLITE3", 9)
    path = robot / "in" / "in.db3"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert cli.execute(["run", "in", "-o", "out.mcap"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: ")]
    assert len(lines) == 1
    assert "in" in lines[0]


def test_what_counts_as_a_log(tmp_path: Path) -> None:
    pictures, metadata = tmp_path / "pictures", tmp_path / "metadata"
    pictures.mkdir()
    metadata.mkdir()
    (metadata / "metadata.yaml").write_text("license: CC0\n")
    assert not is_log(pictures)
    assert not is_log(metadata)
    (metadata / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  version: 9\n")
    assert is_log(metadata)
    (pictures / "cut_0.db3").write_bytes(b"")
    assert is_log(pictures)
    assert [is_log(tmp_path / name) for name in ("a.mcap", "a.bag", "a.db3", "a.png", "a.mp4")] == [True] * 3 + [
        False
    ] * 2


def test_a_topic_without_hash_gets_the_one_of_its_definition(tmp_path: Path) -> None:
    source = logs.camera_log(tmp_path / "in.mcap", 1)  # written without hashes
    reader = open_log(source)
    image = next(topic for topic in reader.topics if topic.name == "/front/image_rect")
    assert image.type_hash == ""
    with new_log(tmp_path / "out", source) as writer:
        number = writer.add_topic(image)
        for message in reader.messages([image]):
            writer.write(number, message.log_time_ns, message.publish_time_ns, message.data)
        with pytest.raises(LogError, match="its messages are protobuf"):
            writer.add_topic(LogTopic("/x", "foxglove.Log", "protobuf", "protobuf", b"", key=9))
        with pytest.raises(LogError, match="no type hash"):
            writer.add_topic(LogTopic("/x", "own_msgs/msg/Secret", "cdr", "", b"", key=9))
    reader.close()
    text = (tmp_path / "out" / "metadata.yaml").read_text()
    assert HASHES["sensor_msgs/msg/Image"] in text
