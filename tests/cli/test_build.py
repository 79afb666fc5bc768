"""``mvde build``: which graphs and engines the options name, and what it says when they name none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.artifact import Artifact

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")


@pytest.fixture
def workspace(tmp_path: Path, write_graph: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the graphs tiny-32x48 and tiny-64x64."""
    write_graph(tmp_path / "export")
    write_graph(tmp_path / "export", resolution=(64, 64))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _built(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_one_command_builds_and_says_what_it_made(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["build", "--engine", "openvino:fp32", "--res", "32x48"]) == 0
    assert _built(workspace / "engines") == ["tiny-32x48-openvino-fp32"]
    out = capsys.readouterr().out
    assert "openvino:fp32, computes in fp32 on" in out
    assert "|Δdepth|/depth max" in out


def test_tuning_says_what_it_measured_and_what_it_chose(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", "onnxruntime:fp32", "--res", "32x48", "--tune", "--tune-seconds", "0.1"]
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
    workspace: Path, write_graph: Callable[..., Artifact], capsys: pytest.CaptureFixture[str]
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
    assert cli.execute(["build", "--onnx", "export/tiny-32x48.onnx"]) == 0
    assert _built(workspace / "engines") in (["tiny-32x48-openvino-fp32"], ["tiny-32x48-openvino-bf16"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--engine", "fp17"], 2, "[BACKEND:]PRECISION"),
        (["--engine", "openvino:fp8"], 1, "does not work on this machine"),
        (["--res", "999"], 1, "999x999"),
        (["--res", "0"], 2, "not understood"),
        (["--name", "giant"], 1, "giant"),
        (["--onnx", "nowhere.onnx"], 1, "nowhere.onnx"),
        (["--onnx", "export/tiny-32x48.onnx", "--res", "32x48"], 2, "leave --name, --res and --batch out"),
        (["--images", "export"], 1, "holds no image"),
        (["--export-dir", "elsewhere"], 1, "mvde export"),
        (["--provider", "cuda"], 2, "--provider is for onnxruntime"),
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
    assert cli.execute(["build", "--onnx", str(graph)]) == 1
    assert "mvde export" in capsys.readouterr().err
    graph.with_suffix(".json").unlink()
    assert cli.execute(["build", "--onnx", str(graph)]) == 1
    assert "no manifest" in capsys.readouterr().err
    assert _built(workspace / "engines") == []


def test_ctrl_c_leaves_no_engine(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.engines import openvino

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino, "_executed_precision", interrupt)
    assert cli.execute(["build", "-e", "openvino:fp32"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert _built(workspace / "engines") == []


@pytest.mark.vnni
def test_int8_engines_are_built_from_the_typed_graph_beside_the_fp32_one(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "--onnx", "export/tiny-32x48.onnx", "--precision", "int8", "--method", "minmax"]
    assert cli.execute(arguments) == 0
    assert "1 in int8" in capsys.readouterr().out
    typed = (workspace / "export" / "tiny-32x48.int8.onnx").read_bytes()
    ids = ["-e", "openvino:int8", "-e", "onnxruntime:int8"]
    assert cli.execute(["build", "--res", "32x48", *ids]) == 0
    assert _built(workspace / "engines") == ["tiny-32x48-onnxruntime-int8", "tiny-32x48-openvino-int8"]
    folder = workspace / "engines" / "tiny-32x48-onnxruntime-int8"
    assert (folder / "engine.onnx").read_bytes() == typed
    manifest = json.loads((folder / "engine.json").read_text())
    assert manifest["precision"]["calibration"]["method"] == "minmax"
    assert manifest["engine"]["onnx_sha256"] == manifest["precision"]["onnx_sha256"]


def test_rest_is_refused_where_nothing_is_left_to_choose(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for engine in ("openvino:fp32", "onnxruntime:int8"):
        assert cli.execute(["build", "--res", "32x48", "-e", engine, "--rest", "fp32"]) == 2
        assert f"goes with openvino:int8 alone, but this is {engine}" in capsys.readouterr().err
    assert cli.execute(["build", "--res", "32x48", "-e", "openvino:int8", "--rest", "fp8"]) == 2
    assert "cannot be 'fp8'; use fp32 or bf16 or fp16" in capsys.readouterr().err
    assert _built(workspace / "engines") == []


def test_a_typed_graph_is_no_source_of_engines(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["export", "--onnx", "export/tiny-32x48.onnx", "--precision", "fp16"]) == 0
    assert cli.execute(["build", "--onnx", "export/tiny-32x48.fp16.onnx", "-e", "onnxruntime:fp16"]) == 2
    assert "is typed (fp16); give --onnx the fp32 graph" in capsys.readouterr().err
    assert cli.execute(["export", "--onnx", "export/tiny-32x48.fp16.onnx", "--precision", "int8"]) == 2
    assert "is typed already (fp16)" in capsys.readouterr().err


@pytest.mark.vnni
def test_calibration_folders_that_are_missing_empty_small_or_broken(
    workspace: Path, capsys: pytest.CaptureFixture[str], random_images: Callable[..., np.ndarray]
) -> None:
    arguments = ["build", "--res", "32x48", "-e", "openvino:int8", "--calibration"]
    folder = workspace / "photos"
    assert cli.execute([*arguments, "nowhere"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    folder.mkdir()
    assert cli.execute([*arguments, "photos"]) == 1
    assert "photos holds no image" in capsys.readouterr().err
    for index, image in enumerate(random_images(3, 40, 60, 3)):
        Image.fromarray(image).save(folder / f"{index}.png")
    assert cli.execute([*arguments, "photos"]) == 1
    assert "holds 3 images; calibration needs at least 4" in capsys.readouterr().err
    (folder / "4.png").write_bytes(b"no picture")
    assert cli.execute([*arguments, "photos"]) == 1
    assert "4.png" in capsys.readouterr().err
    assert _built(workspace / "engines") == []
    Image.fromarray(random_images(40, 60, 3, seed=9)).save(folder / "4.png")
    assert cli.execute([*arguments, "photos"]) == 0
    record = json.loads((workspace / "engines" / "tiny-32x48-openvino-int8" / "engine.json").read_text())["precision"]
    assert record["calibration"]["num_images"] == 3
    assert record["gate"]["runs"][0]["images"] == "every fourth image of photos"


def test_proof_of_one_engine_takes_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["build", "--prove", "engines/one", "--engine", "openvino:fp32"]) == 2
    assert "--prove measures the one engine that it names" in capsys.readouterr().err
