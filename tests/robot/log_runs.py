"""What the tests of logs share: a working directory with an engine, and runs of the verb on ``in.mcap``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvde import cli
from mvde.runtime.depth import DepthRuntime
from tests.robot import log_files as logs

IMAGE, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))
SCAN = "height_m: 0.5\npitch_deg: 10\nroll_deg: 3\nmax_height_m: 3\nrange_max_m: 20\nincrement_deg: 3\n"


def run(*arguments: str, out: str = "out.mcap", status: int = 0) -> dict[str, list[Any]]:
    """Run on ``in.mcap`` and return the messages of the output by topic."""
    assert cli.execute(["run", "in.mcap", "-o", out, *arguments]) == status
    return logs.decoded(Path(out))


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: ")]
    assert len(lines) == 1
    return lines[0]


def expected(index: int, **options: Any) -> Any:
    """Result of the runtime for a frame of the log."""
    with DepthRuntime.load("fp32") as runtime:
        return runtime.infer(logs.picture(index), **options)
