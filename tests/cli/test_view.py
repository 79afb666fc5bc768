"""``mvde view``: what a viewer receives of files and live sources, recordings, and errors."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from tests.robot import foxglove_client as client
from tests.robot import live_servers as servers
from tests.signals import accept_sigint

for module in ("openvino", "av", "foxglove"):
    pytest.importorskip(module)


@pytest.fixture
def robot(engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with an engine and two uniform pictures."""
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    (tmp_path / "photos").mkdir()
    for name, grey in (("a", 40), ("b", 200)):
        Image.new("RGB", (80, 60), (grey,) * 3).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: "))
    return line


@contextmanager
def viewing(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``mvde view`` in a process of its own; yields it and the address of its server."""
    command = [sys.executable, "-m", "mvde", "view", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=accept_sigint
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"open (ws://127\.0\.0\.1:\d+) in Foxglove", line):
                    yield process, found[1]
                    return
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
        finally:
            process.kill()


def depth_m(message: object) -> float:
    return float(np.median(np.frombuffer(message.content.data, np.float32)))  # type: ignore[attr-defined]


def test_pictures_begin_with_the_first_viewer_and_the_last_one_stays(robot: Path) -> None:
    with viewing("photos", "--rate", "5") as (process, url):
        with client.FoxgloveClient(url) as first:
            first.wait_for("/image", "/depth/image")
            first.subscribe("/depth/image")
            depths = [depth_m(first.receive())]
            while depths[-1] == depths[0]:
                depths.append(depth_m(first.receive()))
        near, far = (0.5 + 4 * grey / 255 for grey in (40, 200))
        assert (depths[0], depths[-1]) == pytest.approx((near, far), abs=0.01)
        with client.FoxgloveClient(url) as second:  # after the last frame
            second.wait_for("/depth/image")
            second.subscribe("/depth/image")
            assert depth_m(second.receive()) == pytest.approx(far, abs=0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_live_stream_is_seen_as_it_comes_until_it_stops(robot: Path) -> None:
    with (
        servers.mjpeg_server(num_frames=100, interval_s=0.1) as stream,
        viewing(f"{stream}/live", "--budget", "5000") as (process, url),
    ):
        with client.FoxgloveClient(url) as viewer:
            viewer.wait_for("/latency", "/depth/image")
            viewer.subscribe("/latency", "/depth/image")
            found = viewer.receive_each("/latency", "/depth/image")
            stamps = [viewer.receive().time_ns for _ in range(6)]
        assert found["/latency"].content["age_ms"] > 0
        assert found["/latency"].content["is_late"] is False
        possible = [0.5 + 4 * servers.level(index) / 255 for index in range(11)]
        assert min(abs(depth_m(found["/depth/image"]) - one) for one in possible) < 0.03
        assert stamps == sorted(stamps)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "stopped after 100 frames: the connection ended" in err
        assert re.search(
            r"\d+ frames of http://127\.0\.0\.1:\d+/live; 100 received, \d+ passed over for newer ones", out
        )


@pytest.mark.slow
def test_pictures_of_a_log_come_with_its_camera_and_times(robot: Path) -> None:
    pytest.importorskip("mcap_ros2")
    pytest.importorskip("rosbags")
    from tests.robot import log_files as logs

    logs.camera_log(robot / "in.mcap")
    with viewing("in.mcap") as (process, url):
        with client.FoxgloveClient(url) as viewer:
            viewer.wait_for("/camera_info", "/depth/image", "/image")
            viewer.subscribe("/camera_info", "/image")
            found = [viewer.receive() for _ in range(6)]
        process.kill()
    pictures = {message.time_ns: message.content for message in found if message.topic == "/image"}
    for time_ns, message in pictures.items():
        index = (time_ns - logs.STAMP_NS) // logs.PERIOD_NS
        assert time_ns == logs.STAMP_NS + index * logs.PERIOD_NS + 5
        np.testing.assert_array_equal(np.frombuffer(message.data, np.uint8), logs.picture(index).reshape(-1))
    infos = [message.content for message in found if message.topic == "/camera_info"]
    assert pictures
    assert {(info.K[0], info.width, info.height) for info in infos} == {(72.0, 80, 60)}  # P of rectified pictures


def test_a_recording_alone_needs_no_viewer(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rerun")
    assert cli.execute(["view", "photos", "--rrd", "run.rrd"]) == 0
    assert "recorded in run.rrd" in capsys.readouterr().out
    assert (robot / "run.rrd").stat().st_size > 1000
    with servers.mjpeg_server(num_frames=100) as url:
        assert cli.execute(["view", f"{url}/live", "--rrd", "live.rrd", "--stop-after", "3"]) == 0
    assert (robot / "live.rrd").stat().st_size > 1000
    assert "3 frames of http://127.0.0.1" in capsys.readouterr().out


def test_a_recording_keeps_what_came_before_the_stream_stopped(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rerun")
    with servers.mjpeg_server(num_frames=5, interval_s=0.1) as url:
        assert cli.execute(["view", f"{url}/stalls", "--rrd", "live.rrd", "--timeout", "1"]) == 1
    assert "stopped after 5 frames" in error_line(capsys)
    assert (robot / "live.rrd").stat().st_size > 1000


def test_points_that_cannot_be_had_are_refused_only_if_asked_for(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun")
    assert cli.execute(["view", "photos", "--rrd", "a.rrd", "--fov", "60x45"]) == 0
    assert cli.execute(["view", "photos", "--rrd", "b.rrd"]) == 0  # the tiny engine's kind assumes no camera
    assert cli.execute(["view", "photos", "--rrd", "c.rrd", "--fov", "60x45", "--point-step", "1"]) == 0
    sizes = [Path(name).stat().st_size for name in ("b.rrd", "a.rrd", "c.rrd")]
    assert sizes[0] < sizes[1] < sizes[2]
    capsys.readouterr()
    assert cli.execute(["view", "photos", "--rrd", "d.rrd", "--point-step", "2"]) == 2
    assert "points() needs the camera of the frame" in error_line(capsys)
    assert not (robot / "d.rrd").exists()


def test_a_scan_is_recorded_and_one_that_cannot_be_had_is_refused(
    robot: Path, capsys: pytest.CaptureFixture[str], edit_manifest: Callable[..., None]
) -> None:
    pytest.importorskip("rerun")
    (robot / "mounting.yaml").write_text("height_m: 0.6\nincrement_deg: 6\nsupport_deg2: 1\n")
    arguments = ["view", "photos", "--fov", "60x45", "--rrd"]
    assert cli.execute([*arguments, "plain.rrd"]) == 0
    assert cli.execute([*arguments, "scan.rrd", "--scan", "mounting.yaml"]) == 0
    assert Path("scan.rrd").stat().st_size > Path("plain.rrd").stat().st_size
    capsys.readouterr()
    (robot / "wrong.yaml").write_text("height_m: 0.6\npitch_deg: 89\n")
    for name, message in (("wrong.yaml", "pitch_deg of a scan lies between -80 and 80"), ("none.yaml", "none.yaml")):
        assert cli.execute([*arguments, "a.rrd", "--scan", name]) == 2
        assert message in error_line(capsys)
    relative = {"depth_kind": "scale_invariant", "unit": "1"}
    edit_manifest(next((robot / "engines").rglob("engine.json")), lambda plain: plain.update(relative))
    assert cli.execute([*arguments, "a.rrd", "--scan", "mounting.yaml"]) == 2
    assert "scale_invariant" in error_line(capsys)
    assert not Path("a.rrd").exists()


def test_a_log_of_two_cameras_needs_the_topic_of_one(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("rerun", "mcap_ros2", "rosbags"):
        pytest.importorskip(package)
    from tests.robot import log_files as logs

    log = logs.McapLog(robot / "two.mcap")
    for index, topic in enumerate(("/left/image_rect", "/right/image_rect")):
        log.add(topic, "sensor_msgs/msg/Image", logs.image(index), index)
    log.finish()
    assert cli.execute(["view", "two.mcap", "--rrd", "a.rrd"]) == 2
    line = error_line(capsys)
    assert "/left/image_rect" in line
    assert "--topic" in line
    assert cli.execute(["view", "two.mcap", "--rrd", "a.rrd", "--topic", "/right/image_rect"]) == 0
    assert Path("a.rrd").is_file()
    for arguments, message in (
        (["--topic", "/left/image_rect", "--topic", "/right/image_rect"], "mvde view shows one camera"),
        (["--topic", "/rear"], "/rear"),
        (["--rate", "5", "--topic", "/left/image_rect"], "logs come at their own rate"),
    ):
        assert cli.execute(["view", "two.mcap", "--rrd", "b.rrd", *arguments]) == 2
        assert message in error_line(capsys)
    assert not Path("b.rrd").exists()


def test_unreadable_pictures_are_named_after_the_others_were_shown(
    robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun")
    (robot / "photos" / "bad.png").write_bytes(b"\x89PNG")
    assert cli.execute(["view", "photos", "--rrd", "run.rrd"]) == 1
    assert "1 of 3 inputs could not be read completely: photos/bad.png" in error_line(capsys)
    assert (robot / "run.rrd").is_file()


def test_a_port_in_use_is_one_line(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.execute(["view", "photos", "--port", port]) == 1
    assert f"port {port} of 127.0.0.1 is in use, perhaps by another `mvde view`; give another" in error_line(capsys)


def test_wrong_usage_of_a_viewer(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["photos", "--rate", "0"], "--rate is a number of frames per second above 0, but got 0"),
        (["/dev/video0", "--rate", "5"], "--rate would have no effect: live sources and logs come at"),
        (["photos", "--topic", "/front"], "--topic would have no effect: photos is no log"),
        (["photos", "--stop-after", "5"], "--stop-after would have no effect"),
        (["photos", "--rrd", "run.mcap"], "is a .rrd file, but got run.mcap"),
        (["photos", "--port", "70000"], "less than or equal to 65535"),
        (["photos", "-e", "fp32", "-e", "bf16"], "mvde view takes one engine"),
    ):
        assert cli.execute(["view", *arguments]) == 2
        assert message in error_line(capsys)
    for source, message in (("/dev/video4711", "there is no such device"), ("none.png", "there is no image none.png")):
        assert cli.execute(["view", source, "--rrd", "a.rrd"]) == 1
        assert message in error_line(capsys)
    assert not (robot / "a.rrd").exists()
