"""``mvde import``: from a third-party file to engines in one command each, with one-line errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper
from PIL import Image

from mvde import cli
from mvde.artifact import load_graph
from mvde.contract import DepthKind, FocalConvention, OutputRole
from mvde.export.imported.presets import PRESETS
from tests.export.imported.conftest import MEAN, STD, WEIGHTS, network

CONTRACT = ("--kind", "metric", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.25,0.5")


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with dynamic axes in the working directory."""
    monkeypatch.chdir(tmp_path)
    onnx.save(network(), "theirs.onnx")
    return Path("theirs.onnx")


@pytest.fixture
def with_sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with the outputs of Depth Anything V3 metric."""
    monkeypatch.chdir(tmp_path)
    model = network()
    model.graph.node.append(helper.make_node("Sigmoid", ["sum"], ["sky"]))
    model.graph.output.append(helper.make_tensor_value_info("sky", TensorProto.FLOAT, ["batch", 1, "height", "width"]))
    onnx.save(model, "sky.onnx")
    return Path("sky.onnx")


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_file_becomes_a_graph_that_says_what_it_means(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["import", str(theirs), "--res", "32x48", "--res", "64", *CONTRACT]) == 0
    out = capsys.readouterr().out
    assert "export/theirs-32x48.onnx: metric (m), opset 23" in out
    assert "export/theirs-64x64.onnx" in out
    manifest = load_graph(Path("export/theirs-32x48.onnx")).manifest
    assert (manifest.preprocess.mean, manifest.preprocess.std) == (MEAN, STD)
    assert (manifest.preprocess.fit, manifest.stats_patch) == ("stretch", 16)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, ("--preset", "--kind, --mean, --std")),
        (("--kind", "metric"), 2, ("--mean, --std",)),
        (("--preset", "deep"), 2, ("depth-anything-v2", "metric3d-v2")),
        (CONTRACT, 2, ("--res",)),
        ((*CONTRACT, "--res", "30x48"), 2, ("32x48", "patch size 16")),
        ((*CONTRACT, "--res", "32", "--output", "depth=height"), 2, ("NAME=ROLE", "confidence")),
        ((*CONTRACT, "--res", "32", "--output", "depth=sky"), 2, ("threshold",)),
        ((*CONTRACT, "--res", "32", "--output", "depth=sky:dark"), 2, ("'dark'",)),
        ((*CONTRACT, "--res", "32", "--output", "depth:0.5"), 2, ("'depth:0.5'",)),
        ((*CONTRACT, "--res", "32", "--output", "a=depth", "--output", "b=depth"), 2, ("'a' and 'b'",)),
        ((*CONTRACT, "--res", "32", "--depth-range", "5,1"), 2, ("MIN,MAX",)),
        ((*CONTRACT, "--res", "32", "--canonical-focal", "300"), 2, ("300,", "pixels") [1:]),
        ((*CONTRACT, "--res", "32", "--mean", "1,2"), 2, ("three numbers",)),
        ((*CONTRACT, "--res", "32", "--colour", "YUV"), 2, ("RGB or BGR",)),
        ((*CONTRACT, "--res", "32", "--pixel-range", "2"), 2, ("1 or 255",)),
        ((*CONTRACT, "--res", "32", "--map-scale", "0"), 2, ("--map-scale",)),
        ((*CONTRACT, "--res", "32", "--name", "a/b"), 2, ("'a/b'",)),
        ((*CONTRACT, "--res", "32", "--opset", "12"), 2, ("opset 12",)),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_one_line(
    theirs: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: tuple[str, ...]
) -> None:
    assert cli.execute(["import", str(theirs), *arguments]) == status
    line = error_line(capsys)
    assert all(word in line for word in words)
    assert not Path("export").exists() or not list(Path("export").iterdir())


def test_a_focal_kind_needs_its_camera(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import", str(theirs), "--res", "32x48", *CONTRACT, "--kind", "metric_focal"]
    assert cli.execute(arguments) != 0
    assert "canonical_focal" in error_line(capsys)
    assert cli.execute([*arguments, "--canonical-focal", "1000,pixels"]) == 0
    manifest = load_graph(Path("export/theirs-32x48.onnx")).manifest
    assert (manifest.canonical_focal, manifest.focal_convention) == (1000, FocalConvention.PIXELS)


def test_a_preset_states_the_contract_and_options_override_it(
    with_sky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["import", str(with_sky), "--res", "28x42", "--preset", "depth-anything-v3-metric", "--opset", "20"]
    assert cli.execute([*arguments, "--depth-range", "0,150"]) == 0
    out = capsys.readouterr().out
    assert "note: depth comes with sky of the file" in out
    manifest = load_graph(Path("export/sky-28x42.onnx")).manifest
    assert manifest.depth_kind is DepthKind.METRIC_FOCAL
    assert (manifest.canonical_focal, manifest.stats_patch, manifest.opset) == (300, 14, 20)
    assert manifest.valid_range == (0, 150)
    assert manifest.preprocess.fit == "letterbox"


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        ((), {OutputRole.SKY: 0.3}, "depth comes with sky of the file"),
        (("--output", "sky=sky"), {OutputRole.SKY: 0.3}, "depth comes with sky of the file"),
        (("--output", "sky=mask:0.7"), {OutputRole.MASK: 0.7}, "depth comes with mask of the file"),
        (("--output", "sky=confidence"), {OutputRole.CONFIDENCE: None}, "depth comes with confidence of the file"),
        (("--output", "depth=depth"), {}, "the file's output 'sky' is not in the graph"),
    ],
)
def test_roles_are_the_presets_or_those_that_were_asked_for(
    options: tuple[str, ...],
    expected: dict[OutputRole, float | None],
    words: str,
    with_sky: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["import", str(with_sky), "--res", "28x42", "--preset", "depth-anything-v3-metric"]
    assert cli.execute([*arguments, *options]) == 0
    assert f"note: {words}" in capsys.readouterr().out
    manifest = load_graph(Path("export/sky-28x42.onnx")).manifest
    assert {output.role: output.threshold for output in manifest.outputs} == {OutputRole.DEPTH: None, **expected}
    assert ("conf" in manifest.stats) == (OutputRole.CONFIDENCE in expected)


def test_a_file_without_the_presets_outputs_has_depth_alone(theirs: Path) -> None:
    arguments = ["import", str(theirs), "--res", "28x42", "--preset", "depth-anything-v3-metric"]
    assert cli.execute(arguments) == 0
    outputs = load_graph(Path("export/theirs-28x42.onnx")).manifest.outputs
    assert [output.role for output in outputs] == [OutputRole.DEPTH]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_its_files_and_its_source(name: str) -> None:
    preset = PRESETS[name]
    assert preset.files
    assert "." in preset.source
    record = preset.contract.preprocess
    assert record.fit == "stretch" or preset.contract.patch % record.multiple == 0
    assert preset.contract.kind.has_canonical_camera == (preset.contract.canonical_focal is not None)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino:fp32", "openvino:int8", "onnxruntime:fp16"])
def test_a_file_is_built_run_measured_and_served(
    theirs: Path, capsys: pytest.CaptureFixture[str], engine: str, make_photos: Callable[[], Path]
) -> None:
    pytest.importorskip("openvino")
    assert cli.execute(["import", str(theirs), "--res", "32x48", *CONTRACT, "--depth-range", "0.5,20"]) == 0
    assert cli.execute(["build", "--engine", engine]) == 0
    data = make_photos()
    assert cli.execute(["run", str(data / "rgb"), "--engine", engine, "--out", "depth"]) == 0
    with Image.open("depth/a.depth.png") as image:
        found = np.asarray(image) / 1000
    expected = np.load(data / "depth" / "a.npy")
    assert np.abs(found / expected - 1).mean() < (0.05 if "int8" in engine else 0.002)
    assert cli.execute(["bench", "--engine", engine, "--frames", "10", "--json", "bench.json"]) == 0
    assert json.loads(Path("bench.json").read_text())
    assert cli.execute(["eval", engine, "--data", str(data)]) == 0
    assert cli.execute(["triton", "export/theirs-32x48.onnx", "--out", "triton"]) == 0
    assert Path("triton/theirs-depth/config.pbtxt").is_file()


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[[], Path]:
    """Writer of two photographs at the network's size, with the depth that the file computes."""

    def make() -> Path:
        root = tmp_path / "data"
        for folder in ("rgb", "depth"):
            (root / folder).mkdir(parents=True)
        for index, name in enumerate(("a", "b")):
            pixels = np.random.default_rng(index).integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "rgb" / f"{name}.png")
            values = (pixels.astype(np.float64) / 255 - MEAN) / STD
            np.save(root / "depth" / f"{name}.npy", (1 + np.maximum(values @ WEIGHTS, 0)).astype(np.float32))
        return root

    return make
