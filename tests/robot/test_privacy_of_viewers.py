"""No telemetry of viewers: no socket but the server's own on the loopback interface, and no file in HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("openvino", "foxglove", "rerun"):
    pytest.importorskip(package)

SCRIPT = """
import json, os, pathlib, sys, time
import numpy as np
from mvde.robot.foxglove_server import FoxgloveServer
from mvde.robot.rerun_recording import RerunRecording
from mvde.robot.viewed import Viewed
from mvde.runtime.depth import DepthRuntime

image = np.zeros((60, 80, 3), np.uint8)
with DepthRuntime.load(sys.argv[1]) as runtime:
    viewed = Viewed(0, image, runtime.infer(image), time.time_ns())
viewers = [FoxgloveServer(port=0), RerunRecording(pathlib.Path("run.rrd"))]
for viewer in viewers:
    viewer.show(viewed)
time.sleep(0.5)
own = {os.readlink(link.path) for link in os.scandir("/proc/self/fd") if os.path.islink(link.path)}
sockets = []
for name in ("tcp", "tcp6", "udp", "udp6"):
    for line in pathlib.Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
        fields = line.split()
        if f"socket:[{fields[9]}]" in own:
            sockets.append([name, fields[1].partition(":")[0], fields[3]])
for viewer in viewers:
    viewer.close()
print(json.dumps(sockets))
"""
LOOPBACK, LISTENS = "0100007F", "0A"  # as /proc/net/tcp has them


@pytest.mark.slow
@pytest.mark.skipif(sys.byteorder != "little", reason="/proc/net/tcp has addresses in the byte order of the machine")
def test_viewers_open_one_socket_on_the_loopback_interface_and_write_nothing_in_home(
    engine_folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "MVDE_LIBRARY")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(engine_folder)],
        cwd=tmp_path,
        env={**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["tcp", LOOPBACK, LISTENS]]
    assert list(home.rglob("*")) == []
    assert (tmp_path / "run.rrd").is_file()
