"""A long log takes no more memory than a short one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvde.robot.camera_topics import camera_topics
from mvde.robot.depth_log import Problems, write_depth_log
from mvde.robot.depth_topics import LogOutputs
from mvde.robot.logs import new_log, open_log
from mvde.runtime.depth import DepthRuntime
from tests.robot import log_files as logs

for package in ("openvino", "rosbags", "mcap", "mcap_ros2"):
    pytest.importorskip(package)

NUM_FRAMES, NUM_WARM = 3400, 400
"""Pictures, each with a CameraInfo and a line of text: 10,200 messages, and 49 MB of pixels."""


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.mcap", pytest.param("folder", marks=pytest.mark.extended)])
def test_memory_is_flat_over_ten_thousand_messages(engine_folder: Path, tmp_path: Path, name: str) -> None:
    source = logs.camera_log(tmp_path / "in.mcap", NUM_FRAMES)
    reader, problems, memory = open_log(source), Problems(print), {}
    outputs = LogOutputs(copy_topics=True)
    with DepthRuntime.load(engine_folder) as runtime, new_log(tmp_path / name, source) as writer:
        cameras = camera_topics(reader, (), problems.add)
        for index, _ in enumerate(write_depth_log(reader, writer, cameras, runtime, outputs, problems), 1):
            if index in (NUM_WARM, NUM_FRAMES):
                memory[index] = _resident_mib()
    reader.close()
    assert not problems.counts
    # 3000 frames are 43 MB of pixels in and 57 MB of depth out; the index of the output grows by 100 bytes a message.
    assert memory[NUM_FRAMES] - memory[NUM_WARM] < 12
