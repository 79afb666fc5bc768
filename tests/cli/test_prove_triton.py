"""``mvde prove`` and ``mvde triton``: their artefact, and errors on any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvde import cli
from mvde.artifact import GraphArtifact


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("mvde: error: ")
    assert captured.out == ""
    return line


def test_what_is_no_engine_cannot_be_proved(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_graph(tmp_path / "export")
    assert cli.execute(["prove", str(graph.path)]) != 0
    assert "engine" in error_of(capsys)
    assert cli.execute(["prove", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in error_of(capsys)
    assert cli.execute(["prove", str(tmp_path / "export")]) == 1
    assert "export" in error_of(capsys)
    assert cli.execute(["prove"]) == 2
    assert "Missing argument 'ENGINE'" in error_of(capsys)
    assert cli.execute(["prove", "engines/one", "--engine", "openvino:fp32"]) == 2
    assert "--engine" in error_of(capsys)


def test_an_engine_that_was_measured_when_it_was_built_needs_no_proof(
    engine_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute(["prove", str(engine_folder)]) == 2
    assert "are measured when they are built" in error_of(capsys)


def test_a_graph_becomes_a_model_repository(
    tmp_path: Path, write_graph: Callable[..., GraphArtifact], capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_graph(tmp_path / "export")
    assert cli.execute(["triton", str(graph.path), "--out", str(tmp_path / "models")]) == 0
    assert "image [1, 32, 48, 3] uint8 -> depth [1, 32, 48], stats" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["tiny", "tiny-depth", "tiny-stats"]


def test_what_cannot_be_served_is_one_line(
    tmp_path: Path, engine_folder: Path, write_graph: Callable[..., GraphArtifact], capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_graph(tmp_path / "export")
    (tmp_path / "file").write_bytes(b"")
    assert cli.execute(["triton", str(graph.path), "--out", str(tmp_path / "file")]) == 2
    assert "file is a file; --out must be a folder" in error_of(capsys)
    assert cli.execute(["triton", str(graph.path)]) == 2
    assert "Missing option '--out'" in error_of(capsys)
    assert cli.execute(["triton", str(tmp_path / "nowhere.onnx"), "--out", str(tmp_path / "models")]) == 1
    assert "nowhere.onnx" in error_of(capsys)
    assert cli.execute(["triton", str(engine_folder), "--out", str(tmp_path / "models")]) == 2
    assert "openvino" in error_of(capsys)
    assert not (tmp_path / "models").exists()
