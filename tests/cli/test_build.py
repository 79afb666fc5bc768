"""``mvde build``: selection of graphs and engines by options, and errors if none match."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mvde import cli
from mvde.artifact import GraphArtifact
from mvde.engines.backends import backend, backend_names

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")


@pytest.fixture
def workspace(tmp_path: Path, write_graph: Callable[..., GraphArtifact], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with the graphs tiny-32x48 and tiny-64x64."""
    write_graph(tmp_path / "export")
    write_graph(tmp_path / "export", resolution=(64, 64))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_what_each_backend_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["build", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in backend_names():
        for setting in backend(name).settings():
            assert f"--set for {name}:" in shown
            assert setting.name in shown
    assert "optimization_level" in shown
    assert "provider" in shown


def _built(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_one_command_builds_and_says_what_it_made(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["build", "--engine", "openvino:fp32", "--res", "32x48"]) == 0
    assert _built(workspace / "engines") == ["tiny-32x48-openvino-fp32"]
    out = capsys.readouterr().out
    assert "openvino:fp32, computes in fp32 on" in out
    assert "|Δdepth|/depth max" in out


def test_tuning_says_what_it_measured_and_what_it_chose(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", "onnxruntime:fp32", "--res", "32x48", "--tune", "0.1"]
    assert cli.execute(["build", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(" ms, " in line for line in lines) >= 5
    assert sum(line.endswith("(chosen)") for line in lines) >= 1
    assert any(line.startswith("  the library's choice: ") for line in lines)


def test_without_a_resolution_every_exported_one_is_built(workspace: Path) -> None:
    arguments = [
        "build",
        "-e",
        "openvino:fp32",
        "-e",
        "onnxruntime:fp32",
        "-e",
        "fp32",
        "--threads",
        "1",
        "--out",
        "there",
    ]
    assert cli.execute(arguments) == 0
    assert _built(workspace / "there") == [
        "tiny-32x48-onnxruntime-fp32",
        "tiny-32x48-openvino-fp32",
        "tiny-64x64-onnxruntime-fp32",
        "tiny-64x64-openvino-fp32",
    ]


def test_graphs_that_differ_in_their_batch_are_told_apart(
    workspace: Path, write_graph: Callable[..., GraphArtifact], capsys: pytest.CaptureFixture[str]
) -> None:
    write_graph(workspace / "export", batch=2)
    build = ["build", "-e", "openvino:fp32", "--res", "32x48"]
    assert cli.execute(build) == 1
    assert "--batch N" in capsys.readouterr().err
    assert cli.execute([*build, "--batch", "2"]) == 0
    assert cli.execute([*build, "--batch", "1"]) == 0
    assert _built(workspace / "engines") == ["tiny-32x48-b2-openvino-fp32", "tiny-32x48-openvino-fp32"]
    Image.new("RGB", (60, 40), (90, 120, 150)).save("photo.png")
    assert cli.execute(["run", "photo.png"]) == 1
    assert "--batch" in capsys.readouterr().err
    assert cli.execute(["run", "photo.png", "--batch", "2"]) == 0
    assert cli.execute(["bench", "-e", "openvino:fp32", "--batch", "1", "--frames", "1"]) == 0
    assert cli.execute([*build, "--batch", "3"]) == 1
    assert "with batch 3" in capsys.readouterr().err


def test_without_an_engine_the_best_one_here_is_built(workspace: Path) -> None:
    assert cli.execute(["build", "export/tiny-32x48.onnx"]) == 0
    assert _built(workspace / "engines") in (["tiny-32x48-openvino-fp32"], ["tiny-32x48-openvino-bf16"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--engine", "fp17"], 2, "[BACKEND:]PRECISION"),
        (["--engine", "openvino:fp8"], 1, "does not work on this machine"),
        (["--res", "999"], 1, "999x999"),
        (["--res", "0"], 2, "not understood"),
        (["--name", "giant"], 1, "giant"),
        (["nowhere.onnx"], 1, "nowhere.onnx"),
        (["export/tiny-32x48.onnx", "--res", "32x48"], 2, "leave --name, --res and --batch out"),
        (["--images", "export"], 1, "holds no image"),
        (["--export-dir", "elsewhere"], 1, "mvde export"),
        (["-e", "openvino:fp32", "--set", "provider=cuda"], 2, "--set provider=cuda is not for openvino, which takes"),
        (["-e", "onnxruntime:fp32", "--set", "colour=red"], 2, "which takes provider"),
        (["--set", "provider"], 2, "--set 'provider' is not understood; give KEY=VALUE"),
        (["--set", "provider=cpu", "--set", "provider=cuda"], 2, "--set provider is given twice, as 'cpu' and 'cuda'"),
        (["--list", "engines.json", "--engine", "fp32"], 2, "--list names the engines; leave GRAPH, --engine"),
        (["--list", "engines.json", "export/tiny-32x48.onnx"], 2, "--list names the engines; leave GRAPH, --engine"),
        (["--list", "engines.json"], 2, "cannot read engines.json"),
        (["--tune", "0"], 2, "'--tune'"),
        (["--rest", "int8"], 2, "'int8' is not one of 'fp32', 'fp16', 'bf16'"),
        (["--dla", "0"], 2, "No such option: --dla"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert cli.execute(["build", *arguments]) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvde: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert _built(workspace / "engines") == []


def test_a_graph_without_its_manifest_or_with_another_content_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = workspace / "export" / "tiny-32x48.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    assert cli.execute(["build", str(graph)]) == 1
    assert "mvde export" in capsys.readouterr().err
    graph.with_suffix(".json").unlink()
    assert cli.execute(["build", str(graph)]) == 1
    assert "no manifest" in capsys.readouterr().err
    assert _built(workspace / "engines") == []


def test_ctrl_c_leaves_no_engine(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.engines.openvino import compile as openvino

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino, "executed_precision", interrupt)
    assert cli.execute(["build", "-e", "openvino:fp32"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert _built(workspace / "engines") == []
