"""``mvde info``: readable manifests, and corrupt artefacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.artifact import GraphArtifact, manifest_path
from mvde.cli import execute

Writer = Callable[..., GraphArtifact]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_one_artefact_is_shown_with_what_a_user_needs(
    write_graph: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_graph(tmp_path / "export")
    assert execute(["info", str(graph.path)]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "image: uint8 [1, 32, 48, 3] BHWC, RGB",
        "depth: float32 [1, 32, 48], depth",
        "metric, 0.5 to 4.5 m",
        "2 rows x 3 columns of 16 px",
        "inside the graph",
        graph.manifest.file.sha256,
    ):
        assert expected in shown


@pytest.mark.parametrize("what", ["tiny", "tiny-32x48"])
def test_artefact_is_found_by_name(
    write_graph: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    write_graph(tmp_path / "export")
    folders = ["--export-dir", str(tmp_path / "export"), "--engine-dir", str(tmp_path / "engines")]
    assert execute(["info", what, *folders]) == 0
    assert "tiny-32x48.onnx" in capsys.readouterr().out


def test_json_is_the_manifest_itself(write_graph: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = write_graph(tmp_path)
    assert execute(["info", str(manifest_path(graph.path)), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(manifest_path(graph.path).read_text())
    assert execute(["info", str(graph.path), "--json", str(tmp_path / "copy.txt")]) == 0
    assert json.loads((tmp_path / "copy.txt").read_text()) == json.loads(manifest_path(graph.path).read_text())
    assert "metric, 0.5 to 4.5 m" in capsys.readouterr().out


def test_several_artefacts_are_listed(write_graph: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_graph(tmp_path, "tiny", (32, 48))
    write_graph(tmp_path, "tiny", (64, 64))
    assert execute(["info", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "tiny 32x48" in shown
    assert "tiny 64x64" in shown
    assert execute(["info", str(tmp_path), "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_narrow_terminal_shows_the_whole_path_of_each_artefact(
    write_graph: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    graphs = [write_graph(tmp_path, "a-model-with-a-long-name", size) for size in ((32, 48), (64, 64))]
    assert execute(["info", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    first_column = "".join(row.split("│")[1].strip() for row in rows if row.startswith("│"))
    assert first_column == "".join(str(graph.path) for graph in graphs)


def test_engine_is_shown_with_what_it_computes_in(engine_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["info", str(engine_folder)]) == 0
    shown = capsys.readouterr().out
    assert "openvino:fp32" in shown
    assert "computes in" in shown
    assert "CPU features" in shown


def spoil_content(graph: GraphArtifact) -> Path:
    graph.path.write_bytes(graph.path.read_bytes()[:-1])
    return graph.path


def spoil_manifest(graph: GraphArtifact) -> Path:
    manifest_path(graph.path).write_text("{}")
    return graph.path


def lose_manifest(graph: GraphArtifact) -> Path:
    manifest_path(graph.path).unlink()
    return graph.path


def lose_everything(graph: GraphArtifact) -> Path:
    return graph.path.with_name("lost.onnx")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_content, "truncated"),
        (spoil_manifest, "not a manifest"),
        (lose_manifest, "there is no manifest"),
        (lose_everything, "there is no file"),
    ],
)
def test_artefact_that_cannot_be_trusted_is_one_line(
    write_graph: Writer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[GraphArtifact], Path],
    named: str,
) -> None:
    path = spoil(write_graph(tmp_path))
    assert execute(["info", str(path)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert named in output.err
    assert output.err.count("\n") == 1


def test_unknown_name_lists_what_there_is(
    write_graph: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_graph(tmp_path)
    folders = ["--export-dir", str(tmp_path), "--engine-dir", str(tmp_path / "engines")]
    assert execute(["info", "other", *folders]) == 1
    error = capsys.readouterr().err
    assert "'other'" in error
    assert "tiny 32x48" in error
