"""No telemetry: running an engine opens no socket, starts no process and writes no file in HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

SCRIPT = """
import json, os, sys
STARTS = ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen")
seen = []
def watch(event, arguments):
    kind = event.split(".")[0]
    if kind == "socket" or event in STARTS:
        seen.append([event, repr(arguments)[:200]])
    elif event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(os.environ["HOME"]):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append([event, arguments[0]])
sys.addaudithook(watch)
import _posixsubprocess
def refuse(*arguments):  # what multiprocessing starts processes with raises no event
    seen.append(["fork_exec", repr(arguments[0])[:200]])
    raise OSError("no process is started here")
_posixsubprocess.fork_exec = refuse
import numpy as np
from mvde.runtime.depth import DepthRuntime
with DepthRuntime.load(sys.argv[1]) as runtime:
    runtime.infer(np.zeros((60, 80, 3), np.uint8))
assert "openvino.tools.ovc" in sys.modules, "OpenVINO imports its telemetry client"
import openvino_telemetry  # a user's own use of it is the user's
print(json.dumps(seen))
"""


def test_loading_and_running_an_openvino_engine_reports_nothing(engine_folder: Path, tmp_path: Path) -> None:
    # Without the CI variables, which disable telemetry, and without a stored consent.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "MVDE_LIBRARY")}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(engine_folder)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []
    assert list(tmp_path.rglob("*")) == []
