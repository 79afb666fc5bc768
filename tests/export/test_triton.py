"""The Triton repository: parsed by Triton's schema, and statistics equal to NumPy's."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde import cli
from mvde.artifact import GraphArtifact, load_engine_artifact, manifest_path
from mvde.errors import ManifestError, OutputError, UsageError
from mvde.export.triton import write_repository
from mvde.stats import depth_to_patch_stats


@pytest.fixture
def source(tmp_path: Path, write_graph: Callable[..., GraphArtifact]) -> GraphArtifact:
    return write_graph(tmp_path / "export", batch=2)


@pytest.fixture
def read_config() -> Callable[[Path], Any]:
    """Parser of a config.pbtxt with the schema from Triton's client."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    return lambda folder: text_format.Parse((folder / "config.pbtxt").read_text(), _schema().ModelConfig())


def _schema() -> Any:
    """The generated schema alone; its package would import the client's network libraries."""
    if "model_config_pb2" not in sys.modules:
        package = importlib.util.find_spec("tritonclient")
        if package is None or package.origin is None:
            pytest.skip("tritonclient is not installed")
        sys.modules["model_config_pb2"] = _module(Path(package.origin).parent / "grpc" / "model_config_pb2.py")
    return sys.modules["model_config_pb2"]


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configurations_follow_triton_s_schema_and_the_manifest(
    source: GraphArtifact, tmp_path: Path, read_config: Callable[[Path], Any]
) -> None:
    folders = write_repository(source, tmp_path / "models")
    configs = {folder.name: read_config(folder) for folder in folders}
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["tiny", "tiny-depth", "tiny-stats"]
    for name, config in configs.items():
        assert config.name == name
        assert config.max_batch_size == 0
    depth, stats, both = configs["tiny-depth"], configs["tiny-stats"], configs["tiny"]
    schema = _schema()
    assert (depth.backend, stats.backend, both.platform) == ("onnxruntime", "python", "ensemble")
    assert [(item.name, item.data_type, list(item.dims)) for item in both.input] == [
        ("image", schema.TYPE_UINT8, [2, 32, 48, 3])
    ]
    assert [(item.name, item.data_type, list(item.dims)) for item in both.output] == [
        ("depth", schema.TYPE_FP32, [2, 32, 48]),
        ("stats", schema.TYPE_FP32, [2, 6, 3]),
    ]
    assert list(depth.input) == list(both.input)
    assert list(stats.output) == [both.output[1]]
    assert [step.model_name for step in both.ensemble_scheduling.step] == ["tiny-depth", "tiny-stats"]
    made = {"image", *(value for step in both.ensemble_scheduling.step for value in step.output_map.values())}
    assert {value for step in both.ensemble_scheduling.step for value in step.input_map.values()} <= made
    assert (tmp_path / "models" / "tiny-depth" / "1" / "model.onnx").read_bytes() == source.path.read_bytes()


def test_the_python_model_gives_numpy_s_statistics(
    source: GraphArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = np.random.default_rng(0).uniform(0.5, 4.0, (2, 32, 48)).astype(np.float32)
    fake = types.SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: types.SimpleNamespace(as_numpy=lambda: request[name]),
        Tensor=lambda name, array: (name, array),
        InferenceResponse=lambda output_tensors: dict(output_tensors),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    folder = write_repository(source, tmp_path / "models")[1]
    model = _module(folder / "1" / "model.py").TritonPythonModel()
    parameters = {"patch_size": {"string_value": "16"}, "stats": {"string_value": "mean,var,grad"}}
    model.initialize({"model_config": json.dumps({"parameters": parameters})})
    (response,) = model.execute([{"depth": depth}])
    np.testing.assert_array_equal(response["stats"], depth_to_patch_stats(depth, 16, ("mean", "var", "grad")))


def test_an_older_repository_is_replaced_and_foreign_folders_are_not(source: GraphArtifact, tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_repository(source, root)
    (root / "tiny-depth" / "1" / "stale").write_text("old")
    write_repository(source, root)
    assert not (root / "tiny-depth" / "1" / "stale").exists()
    (root / "tiny-stats" / "config.pbtxt").unlink()
    with pytest.raises(OutputError, match="is not a Triton model"):
        write_repository(source, root)


def test_an_engine_that_triton_does_not_serve_is_refused(engine_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="engine of openvino, which Triton does not serve"):
        write_repository(load_engine_artifact(engine_folder / "engine.json"), tmp_path / "models")


def test_the_command_line_writes_one(source: GraphArtifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["triton", str(source.path), "--out", str(tmp_path / "models")]) == 0
    assert "models/tiny: image" in capsys.readouterr().out
    assert (tmp_path / "models" / "tiny" / "config.pbtxt").is_file()


@pytest.mark.parametrize("name", ["../../x", "..", 'x" }', "a/b", "", "x\n"])
def test_a_name_that_is_a_path_or_breaks_the_configuration_is_refused(
    source: GraphArtifact, tmp_path: Path, name: str, edit_manifest: Callable[..., None]
) -> None:
    outside = tmp_path / "x" / "kept"
    outside.parent.mkdir()
    outside.write_text("another folder's")
    edit_manifest(manifest_path(source.path), lambda plain: plain.update(name=name))
    assert cli.execute(["triton", str(source.path), "--out", str(tmp_path / "in" / "models")]) == 1
    assert outside.read_text() == "another folder's"
    assert not (tmp_path / "in").exists()
    with pytest.raises(ManifestError, match=r"name is .*, but expected letters, digits"):
        dataclasses.replace(source.manifest, name=name)
