"""``mvde lower``: typed graphs next to the fp32 graph, engines built from them, and calibration images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.artifact import GraphArtifact
from mvde.engines.isa import onednn_features, weight_bits

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

GRAPH = "export/tiny-32x48.onnx"


@pytest.fixture
def workspace(tmp_path: Path, write_graph: Callable[..., GraphArtifact], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with the graph tiny-32x48."""
    write_graph(tmp_path / "export")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _built(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_one_command_writes_several_typed_graphs(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["lower", GRAPH, "--to", "fp16", "--to", "int8", "--to", "fp16", "--method", "minmax"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == [
        "export/tiny-32x48.fp16.onnx",
        "export/tiny-32x48.int8.onnx",
    ]
    assert sum("against the fp32 graph" in line for line in lines) == 2
    assert len(_built(workspace / "export")) == 6


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument 'GRAPH'"),
        ([GRAPH], 2, "Missing option '--to'"),
        ([GRAPH, "--to", "fp4"], 2, "'fp4' is not one of 'fp16', 'bf16', 'int8', 'fp8'"),
        ([GRAPH, "--to", "fp32"], 2, "'fp32' is not one of 'fp16', 'bf16', 'int8', 'fp8'"),
        (["nowhere.onnx", "--to", "fp16"], 1, "nowhere.onnx"),
        ([GRAPH, "--to", "int8", "--method", "median"], 2, "'median' is not one of 'auto', 'minmax'"),
        ([GRAPH, "--to", "int8", "--rest", "fp4"], 2, "'fp4' is not one of 'fp32', 'fp16', 'bf16'"),
        ([GRAPH, "--to", "int8", "--rest", "bf16"], 2, "cannot be bf16; use fp32 or fp16"),
        ([GRAPH, "--to", "int8", "--quantization-images", GRAPH], 1, "is not a folder; --quantization-images takes"),
        ([GRAPH, "--to", "int8", "--data", "nowhere"], 1, "nowhere"),
        ([GRAPH, "--to", "int8", "--data", "nowhere", "--format", "zip"], 2, "'zip' is not one of 'folder'"),
        ([GRAPH, "--to", "int8", "--max-frames", "8"], 2, "would have no effect without --data"),
        ([GRAPH, "--to", "int8", "--data", "export", "--max-frames", "-1"], 2, "'--max-frames'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert cli.execute(["lower", *arguments]) == status
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("mvde: error: ")
    assert message in line
    assert captured.out == ""
    assert _built(workspace / "export") == ["tiny-32x48.json", "tiny-32x48.onnx"]


@pytest.mark.parametrize("max_frames", [None, 0, 2])
def test_frames_with_depth_judge_the_graph(
    workspace: Path, capsys: pytest.CaptureFixture[str], max_frames: int | None
) -> None:
    for kind in ("rgb", "depth"):
        (workspace / "data" / kind).mkdir(parents=True)
    for index, level in enumerate((50, 100, 200)):
        Image.fromarray(np.full((32, 48, 3), level, np.uint8)).save(workspace / "data" / "rgb" / f"{index}.png")
        np.save(workspace / "data" / "depth" / f"{index}.npy", np.full((32, 48), 3, np.float32))
    arguments = [] if max_frames is None else ["--max-frames", str(max_frames)]
    assert cli.execute(["lower", GRAPH, "--to", "fp16", "--data", "data", *arguments]) == 0
    assert f"on {max_frames or 3} images ({max_frames or 3} frames of data; against ground truth)" in (
        capsys.readouterr().out
    )


def test_int8_engines_are_built_from_the_typed_graph_beside_the_fp32_one(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["lower", GRAPH, "--to", "int8", "--method", "minmax"]
    assert cli.execute(arguments) == 0
    assert "1 in int8" in capsys.readouterr().out
    assert cli.execute([*arguments, "--weight-bits", "7"]) == 0
    typed = (workspace / "export" / "tiny-32x48.int8.onnx").read_bytes()
    assert (workspace / "export" / "tiny-32x48.int8-w7.onnx").read_bytes() != typed
    ids = ["-e", "openvino:int8", "-e", "onnxruntime:int8"]
    assert cli.execute(["build", "--res", "32x48", *ids]) == 0
    assert _built(workspace / "engines") == ["tiny-32x48-onnxruntime-int8", "tiny-32x48-openvino-int8"]
    narrow = json.loads((workspace / "engines" / "tiny-32x48-openvino-int8" / "engine.json").read_text())["lowering"]
    assert (narrow["calibration"]["method"], narrow["calibration"]["weight_bits"]) == (
        "minmax",
        weight_bits(onednn_features()),
    )
    folder = workspace / "engines" / "tiny-32x48-onnxruntime-int8"
    assert (folder / "engine.onnx").read_bytes() == typed
    manifest = json.loads((folder / "engine.json").read_text())
    assert manifest["lowering"]["calibration"]["method"] == "minmax"
    assert manifest["engine"]["onnx_sha256"] == manifest["lowering"]["onnx_sha256"]


def test_a_rest_that_an_engine_cannot_have_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["build", "--res", "32x48", "-e", "openvino:fp32", "--rest", "fp32"]) == 2
    assert "--rest is for engines in int8 and fp8, but this is openvino:fp32" in capsys.readouterr().err
    assert cli.execute(["build", "--res", "32x48", "-e", "onnxruntime:int8", "--rest", "bf16"]) == 2
    assert "bf16; use fp32" in capsys.readouterr().err
    assert cli.execute(["build", "--res", "32x48", "-e", "openvino:int8", "--rest", "fp8"]) == 2
    assert "'fp8' is not one of 'fp32', 'fp16', 'bf16'" in capsys.readouterr().err
    assert _built(workspace / "engines") == []


def test_a_typed_graph_is_no_source_of_engines(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["lower", "export/tiny-32x48.onnx", "--to", "fp16"]) == 0
    assert cli.execute(["build", "export/tiny-32x48.fp16.onnx", "-e", "onnxruntime:fp16"]) == 2
    assert "is typed (fp16); give the fp32 graph" in capsys.readouterr().err
    assert cli.execute(["lower", "export/tiny-32x48.fp16.onnx", "--to", "int8"]) == 2
    assert "is typed already (fp16)" in capsys.readouterr().err


def test_folders_of_quantization_images_that_are_missing_empty_small_or_broken(
    workspace: Path, capsys: pytest.CaptureFixture[str], random_images: Callable[..., np.ndarray]
) -> None:
    arguments = ["build", "--res", "32x48", "-e", "openvino:int8", "--quantization-images"]
    folder = workspace / "photos"
    assert cli.execute([*arguments, "nowhere"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    folder.mkdir()
    assert cli.execute([*arguments, "photos"]) == 1
    assert "photos holds no image" in capsys.readouterr().err
    for index, image in enumerate(random_images(3, 40, 60, 3)):
        Image.fromarray(image).save(folder / f"{index}.png")
    assert cli.execute([*arguments, "photos"]) == 1
    assert "holds 3 images" in capsys.readouterr().err
    (folder / "4.png").write_bytes(b"no picture")
    assert cli.execute([*arguments, "photos"]) == 1
    assert "4.png" in capsys.readouterr().err
    assert _built(workspace / "engines") == []
    Image.fromarray(random_images(40, 60, 3, seed=9)).save(folder / "4.png")
    assert cli.execute([*arguments, "photos"]) == 0
    record = json.loads((workspace / "engines" / "tiny-32x48-openvino-int8" / "engine.json").read_text())["lowering"]
    assert record["calibration"]["num_images"] == 3
    assert record["gate"]["runs"][0]["images"] == "every fourth image of photos"
