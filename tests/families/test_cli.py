"""``mvde models`` and ``mvde export --model``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.artifact import load_graph
from mvde.cli import execute
from mvde.export.imported.presets import PRESETS

Save = Callable[[str], Path]


def test_models_are_listed_with_kind_unit_licence_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["models"]) == 0
    text = capsys.readouterr().out
    assert "mvde export --model LiheYoung/depth-anything-small-hf" in text
    assert execute(["models", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    entries = {entry["name"]: entry for row in rows["families"] for entry in row["checkpoints"]}
    assert entries["Intel/dpt-large"]["kind"] == "inverse_relative"
    assert entries["apple/DepthPro-hf"]["unit"] == "1/u"
    assert entries["depth-anything/Depth-Anything-V2-Base-hf"]["licence"] == "cc-by-nc-4.0"
    assert all(name in text for name in entries)


def test_presets_are_listed_with_kind_unit_licence_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["models"]) == 0
    text = capsys.readouterr().out
    assert execute(["models", "--json", "-"]) == 0
    presets = {row["preset"]: row for row in json.loads(capsys.readouterr().out)["presets"]}
    assert list(presets) == list(PRESETS)
    metric3d = presets["metric3d-v2"]
    assert (metric3d["kind"], metric3d["unit"], metric3d["licence"]) == ("metric_focal", "m", "bsd-2-clause")
    assert (metric3d["canonical_focal"], metric3d["focal_convention"]) == (1000.0, "pixels")
    assert metric3d["command"] == "mvde import FILE.onnx --preset metric3d-v2"
    assert presets["dpt"]["unit"] == "1/u"
    assert presets["yolo26-depth"]["licence"] == "agpl-3.0"
    assert all(name in text and row["licence"] in text for name, row in presets.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "metric"], "are about --model"),
        (["--model", "x", "--random-weights"], "--model excludes"),
        (["--frame", "480x640"], "--frame is the frame size"),
        (["--model", "x", "--frame", "480x640", "--res", "56"], "both choose the resolution"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["export", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_does_not_say_what_it_gives_is_one_line(
    saved: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["export", "--model", str(saved("dpt")), "--out", str(tmp_path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "mvde: error" in line]
    assert "give --kind" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_frame_chooses_the_size_that_the_authors_processor_would(
    saved: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = ["export", "--model", str(saved("depth-anything")), "--out", str(tmp_path)]
    assert execute([*model, "--frame", "1080x1920"]) == 0
    (path,) = tmp_path.glob("*.onnx")
    assert load_graph(path).manifest.resolution == (56, 98)
    assert "inverse_relative (1/u)" in capsys.readouterr().out
    assert "accuracy" not in caplog.text
    assert execute([*model, "--res", "28"]) == 0
    assert "28x28 is not a size that the author's preprocessing of depth-anything gives" in caplog.text
