"""``mvde run`` on logs that are damaged, unclear or of something else: one line, and the rest is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.runtime.depth import DepthRuntime
from tests.robot import log_files as logs
from tests.robot.log_runs import IMAGE, INFO, SCAN, error_line, run

for package in ("openvino", "rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)


def test_a_scan_without_camera_or_height_is_wrong_usage(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (robot / "scan.yaml").write_text(SCAN)
    (robot / "none.yaml").write_text("pitch_deg: 3\n")
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_raw", IMAGE, logs.image(0))
    log.finish()
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", "--scan", "none.yaml"]) == 2
    assert "none.yaml: lacks height_m" in error_line(capsys)
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", "--scan", "scan.yaml"]) == 2
    assert "camera" in error_line(capsys)
    assert not (robot / "out.mcap").exists()


def test_points_without_rays_or_metres_are_refused(
    robot: Path, edit_manifest: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_raw", IMAGE, logs.image(0))
    info = logs.camera_info(0, d=(0.1, 0.2, 0.3, 0.4))
    log.add("/odd/image_raw", IMAGE, logs.image(0))
    log.add("/odd/camera_info", INFO, {**info, "distortion_model": "fisheye624"})
    log.finish()
    points = ["run", "in.mcap", "-o", "out.mcap", "--point-step", "2"]
    assert cli.execute([*points, "--topic", "/front/image_raw"]) == 2
    assert "points need the camera, and the log has no CameraInfo of it: give --camera or --fov" in error_line(capsys)
    assert cli.execute([*points, "--topic", "/odd/image_raw"]) == 2
    assert "/odd/image_raw: points need each pixel's ray, but the distortion model 'fisheye624'" in error_line(capsys)
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", "--topic", "/odd/image_raw"]) == 0  # depth needs none
    manifest = next((robot / "engines").rglob("engine.json"))
    edit_manifest(manifest, lambda plain: plain.update(depth_kind="scale_invariant", unit="1"))
    logs.camera_log(robot / "ok.mcap", 1)
    assert cli.execute(["run", "ok.mcap", "-o", "p.mcap", "--point-step", "2"]) == 2
    assert "needs a map in metres" in error_line(capsys)
    assert not (robot / "p.mcap").exists()


def test_several_cameras_need_a_choice_and_each_gets_its_own_depth(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.McapLog(robot / "in.mcap")
    for index in range(2):
        log.add("/left/image_rect", IMAGE, logs.image(index), index)
        log.add("/right/image_rect", IMAGE, logs.image(5 + index, pixels=logs.picture(5 + index, (30, 44))), index)
    far = np.ones((4, 4), np.float32)
    log.add("/left/tof/image", IMAGE, {**logs.image(0), "encoding": "32FC1", "step": 16, "data": far.tobytes()})
    log.finish()
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap"]) == 2
    assert "several topics hold pictures: /left/image_rect, /right/image_rect; give --topic" in error_line(capsys)
    assert not (robot / "out.mcap").exists()
    found = run("--topic", "/left/image_rect", "--topic", "/right/image_rect")
    with DepthRuntime.load("fp32") as runtime:
        for index in range(2):
            _, right = found["/right/depth/image_rect"][index]
            np.testing.assert_array_equal(logs.pixels_of(right), runtime.infer(logs.picture(5 + index, (30, 44))).depth)
            _, left = found["/left/depth/image_rect"][index]
            np.testing.assert_array_equal(logs.pixels_of(left), runtime.infer(logs.picture(index)).depth)


def test_depth_images_alone_are_no_camera(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logs.McapLog(robot / "in.mcap")
    far = np.ones((4, 4), np.float32)
    log.add("/tof/image", IMAGE, {**logs.image(0), "encoding": "32FC1", "step": 16, "data": far.tobytes()})
    log.finish()
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap"]) == 1
    assert "the encoding is '32FC1'" in error_line(capsys)
    assert not (robot / "out.mcap").exists()


def test_raw_and_compressed_of_one_camera_are_one_too_many(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_raw", IMAGE, logs.image(0))
    log.add("/front/image_rect", IMAGE, logs.image(0))
    log.finish()
    both = ["--topic", "/front/image_raw", "--topic", "/front/image_rect"]
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", *both]) == 2
    assert "are pictures of one camera" in error_line(capsys)


def test_unknown_topics_are_counted_and_the_rest_is_written(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.camera_log(robot / "in.mcap", 1)
    found = run("--topic", "/front/image_rect", "--topic", "/back/image_rect", "--topic", "/talk", status=1)
    assert len(found["/front/depth/image_rect"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2 messages or topics of the log were passed over" in last
    assert "there is no topic /back/image_rect; pictures are in /front/image_rect" in last
    assert "topic /talk is std_msgs/msg/String (cdr)" in last
    assert cli.execute(["run", "in.mcap", "-o", "x.mcap", "--topic", "/back/image_rect"]) == 2
    assert "there is no topic /back/image_rect" in error_line(capsys)


def test_messages_that_cannot_be_decoded_are_counted_and_the_rest_is_written(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_rect", IMAGE, logs.image(0))
    for index in range(1, 4):
        log.add("/front/image_rect", IMAGE, {**logs.image(index), "data": b"short"}, index)
    log.add("/front/image_rect", IMAGE, logs.image(4, pixels=logs.picture(4, (30, 40))), 4)
    log.add("/front/image_rect", IMAGE, logs.image(5), 5)
    log.add("/front/camera_info", INFO, logs.camera_info(0))
    log.writer._writer.add_message(1, logs.STAMP_NS, b"\x00\x01\x00\x00\x01", logs.STAMP_NS)
    log.finish()
    found = run(status=1)
    assert len(found["/front/depth/image_rect"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum("passed over: topic /front/image_rect: a message was passed over" in line for line in lines[:-1]) == 3
    assert "5 messages or topics of the log were passed over" in lines[-1]
    assert "has 5 bytes in rows of 240, but 60x80 pixels of 3 bytes need 14400 (3x)" in lines[-1]
    assert "the camera is of frames of 60x80, but this frame is 30x40" in lines[-1]
    assert "it is no sensor_msgs/msg/Image" in lines[-1]


def test_a_camera_info_that_is_no_camera_leaves_the_camera_assumed(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_raw", IMAGE, logs.image(0))
    log.add("/front/camera_info", INFO, {**logs.camera_info(0), "k": [float("nan")] * 9, "d": [0.1, 0, 0, 0, 0]})
    log.finish()
    assert len(run(status=1)["/front/depth/image_raw"]) == 1
    printed = capsys.readouterr()
    assert "without CameraInfo" in printed.out
    assert "topic /front/camera_info: fx of a camera lies between" in printed.err.splitlines()[-1]


def test_foxglove_and_json_schemas_are_named_and_copied_to_mcap_only(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.McapLog(robot / "in.mcap")
    log.add("/front/image_rect", IMAGE, logs.image(0))
    plain = log.writer._writer
    schema = plain.register_schema("foxglove.CompressedImage", "jsonschema", b"{}")
    channel = plain.register_channel("/side/image", "json", schema)
    plain.add_message(channel, logs.STAMP_NS, json.dumps({"format": "jpeg"}).encode(), logs.STAMP_NS)
    log.finish()
    assert cli.execute(["run", "in.mcap", "-o", "x.mcap", "--topic", "/side/image"]) == 1
    assert "topic /side/image is foxglove.CompressedImage (json), but mvde reads sensor_msgs/msg/Image" in error_line(
        capsys
    )
    from mcap.reader import make_reader

    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", "--copy-topics"]) == 0
    with (robot / "out.mcap").open("rb") as stream:
        copied = [(schema, message) for schema, channel, message in make_reader(stream).iter_messages(["/side/image"])]
    assert [(schema.name, schema.encoding, message.data) for schema, message in copied] == [
        ("foxglove.CompressedImage", "jsonschema", b'{"format": "jpeg"}')
    ]
    capsys.readouterr()
    assert cli.execute(["run", "in.mcap", "-o", "folder", "--copy-topics"]) == 1
    assert "topic /side/image was not copied: its messages are json, and a rosbag2 folder holds CDR" in error_line(
        capsys
    )
    assert (robot / "folder" / "metadata.yaml").is_file()


def test_a_truncated_log_gives_what_is_there(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.camera_log(robot / "in.mcap", 6, chunk_size=20_000)
    content = (robot / "in.mcap").read_bytes()
    (robot / "in.mcap").write_bytes(content[: int(len(content) * 0.7)])
    found = run("--copy-topics", status=1)
    assert 0 < len(found["/front/depth/image_rect"]) < 6
    assert len(found["/talk"]) > 0
    assert "breaks off or is damaged near byte" in capsys.readouterr().err.splitlines()[-1]


def test_a_damaged_chunk_is_passed_over(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mcap.reader import make_reader

    logs.camera_log(robot / "in.mcap", 6, chunk_size=20_000)
    with (robot / "in.mcap").open("rb") as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
    content = bytearray((robot / "in.mcap").read_bytes())
    content[chunks[1].chunk_start_offset + chunks[1].chunk_length // 2] ^= 0xFF
    (robot / "in.mcap").write_bytes(content)
    found = run(status=1)
    assert 0 < len(found["/front/depth/image_rect"]) < 6
    assert "a damaged chunk of" in capsys.readouterr().err.splitlines()[-1]


def test_no_log_is_ever_overwritten(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logs.camera_log(robot / "in.mcap", 1)
    before = path.read_bytes()
    (robot / "other.mcap").write_bytes(b"precious")
    for out, message in (
        ("in.mcap", "would write into the log that is read"),
        ("./x/../in.mcap", "would write into the log that is read"),
        ("other.mcap", "other.mcap exists, and logs are not overwritten"),
    ):
        assert cli.execute(["run", "in.mcap", "-o", out]) == 2
        assert message in error_line(capsys)
    assert path.read_bytes() == before
    assert (robot / "other.mcap").read_bytes() == b"precious"
    assert cli.execute(["run", "in.mcap"]) == 0  # into depth/ by default
    assert set(logs.decoded(robot / "depth" / "in.mcap")) >= {"/front/depth/image_rect"}


def test_an_interrupted_run_leaves_no_log(robot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvde.robot.depth_topics import DepthTopics

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    logs.camera_log(robot / "in.mcap")
    monkeypatch.setattr(DepthTopics, "write", interrupt)
    for out in ("out.mcap", "folder"):
        assert cli.execute(["run", "in.mcap", "-o", out]) == 130
    assert sorted(path.name for path in robot.iterdir()) == ["engines", "in.mcap"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mcap", None, "there is no log missing.mcap"),
        ("no.mcap", b"plain text, no log", "is not an MCAP file"),
        ("empty.mcap", b"", "is not an MCAP file"),
        ("no.bag", b"plain text, no log", "cannot read the log no.bag"),
        ("no.db3", b"plain text, no log", "cannot read the log no.db3"),
    ],
)
def test_what_is_no_log_is_one_line(
    robot: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (robot / name).write_bytes(content)
    assert cli.execute(["run", name, "-o", "out.mcap"]) == 1
    assert message in error_line(capsys)
    assert not (robot / "out.mcap").exists()


def test_options_that_belong_to_other_inputs_are_wrong_usage(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.camera_log(robot / "in.mcap", 1)
    Image.fromarray(logs.picture(0)).save("a.png")
    assert cli.execute(["run", "a.png", "--copy-topics", "--topic", "/x"]) == 2
    assert "--topic and --copy-topics would have no effect: the input is no log" in error_line(capsys)
    assert cli.execute(["run", "in.mcap", "a.png"]) == 2
    assert "one log at a time, but got 2 inputs" in error_line(capsys)


def test_without_the_extra_the_error_names_it(
    robot: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    logs.camera_log(robot / "in.mcap", 1)
    monkeypatch.setitem(sys.modules, "mcap.stream_reader", None)
    monkeypatch.setitem(sys.modules, "mcap", None)
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap"]) == 1
    assert "pip install 'mvde[ros]'" in error_line(capsys)


def test_a_truncated_file_in_a_folder_says_which_one_to_give(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.robot.test_logs import ros2_folder

    path = ros2_folder(robot / "in", "MCAP", 9) / "in.mcap"
    path.write_bytes(path.read_bytes()[:-200])
    assert cli.execute(["run", "in", "-o", "out.mcap"]) == 1
    assert "give the .mcap file in it" in error_line(capsys)
    assert cli.execute(["run", "in/in.mcap", "-o", "out.mcap"]) in (0, 1)
    assert len(logs.decoded(robot / "out.mcap")["/front/depth/image_rect"]) == 3
