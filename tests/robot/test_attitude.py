"""The tilt of a camera as its log tells it, and ``mvde run`` with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.errors import UsageError
from mvde.robot.attitude import LogAttitude
from mvde.robot.logs import open_log
from mvde.runtime.mounting import Mounting, tilt_of
from tests.robot import log_files as logs
from tests.robot import tilted_logs as tilted
from tests.robot.log_runs import error_line, run
from tests.runtime.floor_rooms import picture, room_depth
from tests.runtime.scan_reference import level_rays

for package in ("openvino", "rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)

PITCHES = (15.0, 20.0, 12.0)
MOUNTINGS = [Mounting(0.6, pitch) for pitch in PITCHES]


def tree(log: logs.McapLog, index: int) -> None:
    """Transforms of a camera that looks down by 10 degrees on a robot that nods by the rest."""
    if index == 0:
        static = [
            tilted.transform(0, "base_link", "camera", tilted.pitched(10.0)),
            tilted.transform(0, "camera", logs.FRAME_ID, tilted.OPTICAL),
        ]
        log.add("/tf_static", tilted.TRANSFORMS, {"transforms": static}, 0)
    nod = tilted.transform(index, "odom", "base_link", tilted.pitched(PITCHES[index] - 10.0))
    log.add("/tf", tilted.TRANSFORMS, {"transforms": [nod]}, index)


def optical_imu(log: logs.McapLog, index: int) -> None:
    """An IMU in the camera's own frame, which says no orientation."""
    pitch = math.radians(PITCHES[index])
    gravity = (0.0, -9.8 * math.cos(pitch), -9.8 * math.sin(pitch))
    for earlier in range(-10, 1):  # 1 s each 0.1 s, so that the mean settles
        log.add("/imu", tilted.IMU, tilted.imu(index + earlier, logs.FRAME_ID, acceleration=gravity), index)


def imu_on_the_body(log: logs.McapLog, index: int) -> None:
    """An IMU on a body whose frame is no upright one, with an orientation."""
    body = [
        tilted.transform(0, "body", "camera", tilted.pitched(10.0)),
        tilted.transform(0, "camera", logs.FRAME_ID, tilted.OPTICAL),
    ]
    log.add("/tf_static", tilted.TRANSFORMS, {"transforms": body}, index)
    log.add("/imu", tilted.IMU, tilted.imu(index, "body", tilted.pitched(PITCHES[index] - 10.0)), index)


@pytest.mark.parametrize(
    ("beside", "source"),
    [
        (tree, "transforms to odom (3x)"),
        (imu_on_the_body, "orientation of /imu (3x)"),
    ],
)
def test_the_floor_gives_scale_with_the_pitch_of_the_log(
    beside: Callable[[logs.McapLog, int], None], source: str, robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tilted.room_log(robot / "in.mcap", MOUNTINGS, beside)
    found = run("--camera-height", "0.6")
    printed = capsys.readouterr().out
    assert "scale from the floor in 3 of 3 frames" in printed
    assert f"pitch of the camera from {source}" in printed
    for (_, message), mounting in zip(found["/front/depth/image_rect"], MOUNTINGS, strict=True):
        truth = room_depth(tilted.CAMERA, mounting)
        assert np.median(np.abs(logs.pixels_of(message) / truth - 1)) < 0.02  # the engine sees 32x48 of 60x80 pixels


def test_a_viewer_takes_the_pitch_of_a_log_too(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rerun")
    tilted.room_log(robot / "in.mcap", MOUNTINGS, tree)
    assert cli.execute(["view", "in.mcap", "--rrd", "in.rrd", "--camera-height", "0.6"]) == 0
    printed = capsys.readouterr().out
    assert "scale from the floor in 3 of 3 frames" in printed
    assert "pitch of the camera from transforms to odom (3x)" in printed


def attitude_of(path: Path) -> LogAttitude:
    """Attitude after a whole log."""
    reader = open_log(path)
    attitude = LogAttitude(reader)
    for message in reader.messages(attitude.topics):
        attitude.update(message)
    reader.close()
    return attitude


LAST_S = (logs.STAMP_NS + 2 * logs.PERIOD_NS) / 1e9


def test_accelerations_tell_the_tilt_too(tmp_path: Path) -> None:
    attitude = attitude_of(tilted.room_log(tmp_path / "in.mcap", MOUNTINGS, optical_imu))
    pitch, roll = attitude.tilt(logs.FRAME_ID, LAST_S) or (math.nan, math.nan)
    assert pitch == pytest.approx(PITCHES[2], abs=2.0)  # a mean over half a second, of a nod within it
    assert roll == pytest.approx(0, abs=1e-6)
    assert attitude.tilt(logs.FRAME_ID, LAST_S + 1.5) is None  # too long ago
    assert attitude.tilt("another", LAST_S) is None  # not connected


def test_transforms_know_what_accelerations_only_feel(tmp_path: Path) -> None:
    def both(log: logs.McapLog, index: int) -> None:
        tree(log, index)
        log.add("/imu", tilted.IMU, tilted.imu(index, "base_link", acceleration=(3.0, 0.0, 9.0)), index)

    attitude = attitude_of(tilted.room_log(tmp_path / "in.mcap", MOUNTINGS, both))
    assert attitude.tilt(f"/{logs.FRAME_ID}", LAST_S) == pytest.approx((PITCHES[2], 0.0))
    assert dict(attitude.sources) == {"transforms to odom": 1}


@pytest.mark.parametrize(
    "mounting", [Mounting(1, 0), Mounting(1, 30, 20), Mounting(1, -50, -120), Mounting(1, 75, 170)]
)
def test_up_gives_the_angles_of_a_mounting(mounting: Mounting) -> None:
    """Up of an optical frame is what the rays along its axes rise by."""
    from mvde.runtime.scan_settings import ScanSettings

    rays = level_rays(tilted.CAMERA, ScanSettings(1.0, mounting.pitch_deg, mounting.roll_deg))[..., 2]
    across, down = (rays[0, 1] - rays[0, 0]) * 72, (rays[1, 0] - rays[0, 0]) * 72
    up = np.array([across, down, rays[0, 0] + across * 39.5 / 72 + down * 29.5 / 72])
    assert tilt_of(up * 9.81) == pytest.approx((mounting.pitch_deg, mounting.roll_deg))


@pytest.mark.parametrize("up", [(0.0, 0.0, 0.0), (math.nan, 0.0, 1.0), (0.0, 0.0, -1.0)])
def test_no_direction_is_no_tilt(up: tuple[float, ...]) -> None:
    assert tilt_of(np.array(up)) is None


def test_frames_without_a_known_tilt_keep_their_depth(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def unconnected(log: logs.McapLog, index: int) -> None:
        log.add("/imu", tilted.IMU, tilted.imu(index, "somewhere", tilted.pitched(1.0)), index)

    tilted.room_log(robot / "in.mcap", MOUNTINGS, unconnected)
    found, plain = run("--camera-height", "0.6"), run(out="plain.mcap")
    printed = capsys.readouterr().out
    assert "scale from the floor in 0 of 3 frames, 3 had no known mounting" in printed
    assert "pitch of the camera from nothing: the log did not tell it" in printed
    for (_, one), (_, other) in zip(found["/front/depth/image_rect"], plain["/front/depth/image_rect"], strict=True):
        assert bytes(one.data) == bytes(other.data)


def test_a_log_that_says_nothing_of_its_tilt_needs_the_pitch(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tilted.room_log(robot / "in.mcap", MOUNTINGS[:1])
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap", "--camera-height", "0.6"]) == 2
    assert "the log does not say how the camera is tilted: it has neither transforms" in error_line(capsys)
    assert not Path("out.mcap").exists()
    run("--camera-height", "0.6", "--pitch", "15")
    assert "scale from the floor in 1 of 1 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--camera-height", "0.6"], "--camera-height needs --pitch, how far the camera looks down"),
        (["--pitch", "10"], "--pitch alone gives no scale; give --camera-height too"),
        (["--camera-height", "0", "--pitch", "1"], "height_m of a mounting lies between 0.01 and 100, but got 0"),
        (["--camera-height", "1", "--pitch", "85"], "pitch_deg of a mounting lies between -80 and 80, but got 85"),
        (["--mounting", "mount.yaml", "--pitch", "1"], "--mounting holds the height and the pitch"),
        (["--mounting", "absent.yaml"], "absent.yaml: cannot be read"),
    ],
)
def test_a_mounting_that_makes_no_sense_is_wrong_usage(
    arguments: list[str], words: str, robot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(logs.picture(0)).save("a.png")
    for verb in ("run", "view"):
        assert cli.execute([verb, "a.png", *arguments]) == 2
        assert words in error_line(capsys)


def test_pictures_take_the_scale_and_say_so(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mounting = Mounting(0.6, 15.0)
    Image.fromarray(picture(room_depth(tilted.CAMERA, mounting) * tilted.WRONG)).save("seen.png")
    Image.fromarray(np.full((60, 80, 3), 40, np.uint8)).save("unseen.png")
    Path("mount.yaml").write_text("height_m: 0.6\npitch_deg: 15\n")
    camera = ["--camera", "72,72,39.5,29.5"]
    assert cli.execute(["run", "seen.png", "unseen.png", *camera, "--mounting", "mount.yaml"]) == 0
    assert "scale from the floor in 1 of 2 frames, 1 showed none" in capsys.readouterr().out
    pytest.importorskip("rerun")
    assert cli.execute(["view", "seen.png", *camera, "--mounting", "mount.yaml", "--rrd", "seen.rrd"]) == 0
    assert "scale from the floor in 1 of 1 frames" in capsys.readouterr().out
    with np.load("depth/seen.stats.npz") as stored:
        assert str(stored["floor"]) == "used"
        assert float(stored["floor_scale"]) == pytest.approx(1 / tilted.WRONG, rel=0.02)
    with np.load("depth/unseen.stats.npz") as stored:
        assert (str(stored["floor"]), float(stored["floor_scale"])) == ("unseen", 1.0)


def test_a_reader_without_any_of_it_is_refused(tmp_path: Path) -> None:
    reader = open_log(logs.camera_log(tmp_path / "in.mcap", 1))
    with pytest.raises(UsageError, match=r"neither transforms \(tf2_msgs/msg/TFMessage, as /tf\) nor an IMU"):
        LogAttitude(reader)
    reader.close()
