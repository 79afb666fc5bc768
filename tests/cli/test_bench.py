"""``mvde bench``: the table, the JSON file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvde import cli

pytest.importorskip("openvino")


def test_the_table_and_the_file_say_what_ran(
    engine_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "bench.json"
    folder = str(engine_folder.parent)
    assert (
        cli.execute(["bench", "--engine", "fp32", "--engine-dir", folder, "--frames", "3", "--json", str(report)]) == 0
    )
    out = capsys.readouterr().out
    for label in ("computes in", "p99.9", "pre (mean)", "first frame", "memory"):
        assert label in out
    stored = json.loads(report.read_text())
    assert stored["engines"][0]["id"] == "openvino:fp32"
    assert stored["engines"][0]["executed_precision"] == "fp32"
    assert stored["machine"]["num_cpus"] >= 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--duration", "0"], 2, "positive duration"),
        (["--frames", "0"], 2, "positive duration"),
        (["--engine", "fp17"], 2, "[BACKEND:]PRECISION"),
        (["--engine", "onnxruntime:fp16"], 1, "mvde build --engine onnxruntime:fp16"),
        (["--fit", "zoom"], 2, "stretch, letterbox, crop"),
    ],
)
def test_bad_input_is_one_line(
    engine_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert cli.execute(["bench", "--engine-dir", str(engine_folder.parent), *arguments]) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: ")]
    assert len(lines) == 1
    assert message in lines[0]
