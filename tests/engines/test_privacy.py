"""No telemetry: running an engine opens no socket, starts no process and writes no file in HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
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
    for link in os.scandir("/proc/self/fd"):  # libraries in C++ raise no event of Python's
        target = os.readlink(link) if os.path.islink(link) else ""
        if target.startswith(("socket:", os.environ["HOME"])):
            seen.append(["descriptor", target])
if "openvino" in sys.argv[1]:
    assert "openvino.tools.ovc" in sys.modules, "the part of OpenVINO that reports is imported with it"
    import openvino_telemetry  # a user's own use of it is the user's
print(json.dumps(seen))
"""


@pytest.mark.parametrize("engine_id", ["openvino:fp32", "onnxruntime:fp32"])
def test_loading_and_running_an_engine_reports_nothing(
    engine_id: str, build_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip(engine_id.split(":")[0])
    folder, home = build_tiny(tmp_path, engine_id), tmp_path / "home"
    home.mkdir()
    # Without the variables of CI, where the library reports nothing anyway, and without an answer to its question.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "MVDE_LIBRARY")}
    environment = {**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []
    assert list(home.rglob("*")) == []
