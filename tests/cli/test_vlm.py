"""``mvde vlm``: from frames to questions, a trained model, its evaluation and an answer; bad input first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli

TINY_TRAINING = ["--embedder-steps", "2", "--steps", "2", "--batch-size", "4", "--lora-rank", "2"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 4x4 blocks with depth in millimetres, as a plain folder."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir()
    for number in range(6):
        depth_mm = rng.integers(500, 5000, (4, 4)).repeat(8, 0).repeat(8, 1).astype(np.uint16)
        Image.fromarray(depth_mm).save(folder / f"depth/{number}.png")
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"rgb/{number}.png")
    return folder


@pytest.fixture
def questions(frames: Path, tmp_path: Path) -> Path:
    path = tmp_path / "qa.json"
    assert cli.execute(["vlm", "qa", str(frames), "--cells", "4", "--distances", "preferred", "--out", str(path)]) == 0
    return path


def test_questions_are_counted_by_kind_and_cue(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "qa.json"
    assert cli.execute(["vlm", "qa", str(frames), "--cells", "4", "--out", str(path)]) == 0
    records = json.loads(path.read_text())
    cues = [record["mvde"]["cue"] for record in records if record["mvde"]["kind"] == "relative"]
    said = capsys.readouterr().out
    assert f"{len(records)} questions about {len(records) // 3} pictures of" in said
    assert f"relative: {cues.count('consistent')} consistent, {cues.count('counter')} counter" in said
    assert cues.count("consistent") == cues.count("counter")


def test_only_the_kinds_asked_for_are_written(frames: Path, tmp_path: Path) -> None:
    path = tmp_path / "qa.json"
    line = ["vlm", "qa", str(frames), "--cells", "4", "--ask", "metric", "--max-frames", "3", "-o", str(path)]
    assert cli.execute(line) == 0
    records = json.loads(path.read_text())
    assert {record["mvde"]["kind"] for record in records} == {"metric"}
    assert {record["mvde"]["frame"] for record in records} <= {0, 2, 4}
    assert all(record["conversations"][1]["value"].endswith(" m") for record in records)


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("qa FRAMES --out qa.txt", 2, "questions are written as JSON, but got qa.txt"),
        ("qa FRAMES --cells 1 --out qa.json", 2, "cells, pairs per frame and seed must be at least 2"),
        ("qa FRAMES --cells 40 --out qa.json", 2, "smaller than 2 pixels; use at most 16"),
        ("qa none --out qa.json", 1, "none/rgb is not a folder"),
        ("train --model m --out o", 2, "Missing option"),
        ("train --model m --data none.json --out o", 1, "none.json cannot be read"),
        ("train --model m --data none.json --steps -1 --out o", 2, "steps must be at least 0, but got -1"),
        ("eval none.json --model m", 1, "none.json cannot be read"),
        ("ask p.jpg ? --model m", 2, "takes one of --depth-file, --engine and --without-depth, but got none of them"),
        ("ask p.jpg ? --model m --depth-file d.png --without-depth", 2, "but got --depth-file, --without-depth"),
    ],
)
def test_bad_input_is_one_line(
    line: str, status: int, message: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.execute(["vlm", *line.replace("FRAMES", str(frames)).split()]) == status
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_model_is_trained_evaluated_and_asked(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    import torch

    from mvde.vlm.tiny import tiny_model, tiny_processor

    torch.set_num_threads(1)
    base, out = tmp_path / "base", tmp_path / "out"
    tiny_model().save_pretrained(base)
    tiny_processor().save_pretrained(base)
    line = ["vlm", "train", "--model", str(base), "--data", str(questions), "--out", str(out), *TINY_TRAINING]
    assert cli.execute(line) == 0
    assert f"{out}: 4 steps, loss" in capsys.readouterr().out
    answers = tmp_path / "answers.jsonl"
    line = ["vlm", "eval", str(questions), "--model", str(out), "--max-questions", "6", "--answers", str(answers)]
    assert cli.execute([*line, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["depth", "depth removed", "depth of another picture"]
    assert all(found[condition]["overall"]["count"] == 6 for condition in found)
    assert len(answers.read_text().splitlines()) == 18
    record = json.loads(questions.read_text())[0]
    photo, depth = (questions.parent / record[name] for name in ("image", "depth"))
    asked = ["vlm", "ask", str(photo), "Which box is nearer to the camera, red or blue?", "--model", str(out)]
    for given in (["--depth-file", str(depth)], ["--without-depth"]):
        assert cli.execute([*asked, *given]) == 0
        assert capsys.readouterr().out.endswith("\n")
    moved = tmp_path / "moved"
    base.rename(moved)
    assert cli.execute([*asked, "--without-depth"]) == 1
    assert cli.execute([*asked, "--without-depth", "--base", str(moved)]) == 0


@pytest.mark.slow
def test_an_evaluation_without_any_depth_is_refused(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    records = [
        {key: value for key, value in one.items() if key != "depth"} for one in json.loads(questions.read_text())
    ]
    (questions.parent / "plain.json").write_text(json.dumps(records))
    assert cli.execute(["vlm", "eval", str(questions.parent / "plain.json"), "--model", str(tmp_path)]) == 2
    assert "has a depth file; give an engine that predicts depth" in capsys.readouterr().err
