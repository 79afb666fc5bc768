"""``mvde run`` on logs, read back by mcap-ros2-support."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde import cli
from mvde.runtime.depth import DepthRuntime
from tests.robot import log_files as logs

for package in ("openvino", "rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)


@pytest.fixture
def robot(engine_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with an engine."""
    shutil.copytree(engine_folder, tmp_path / "engines" / engine_folder.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_log_of_rectified_pictures_gives_a_log_of_depth(robot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.camera_log(robot / "in.mcap")
    assert cli.execute(["run", "in.mcap", "-o", "out.mcap"]) == 0
    assert "3 frames in out.mcap" in capsys.readouterr().out
    found = logs.decoded(robot / "out.mcap")
    patches = {f"/front/depth/patch/{name}" for name in ("mean", "var", "grad", "camera_info")}
    assert set(found) == {"/front/depth/image_rect", "/front/depth/camera_info", *patches}
    with DepthRuntime.load("fp32") as runtime:
        for index, (record, depth) in enumerate(found["/front/depth/image_rect"]):
            expected = runtime.infer(logs.picture(index))
            np.testing.assert_array_equal(logs.pixels_of(depth), expected.depth)
            assert depth.header.frame_id == logs.FRAME_ID
            assert depth.header.stamp.sec * 10**9 + depth.header.stamp.nanosec == record.log_time - 5
            assert record.publish_time == record.log_time - 2
