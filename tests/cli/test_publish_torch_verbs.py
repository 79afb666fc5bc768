"""``mvde export`` and ``mvde train``, killed and terminated before each of their renames: what is there is whole."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.artifact import load_artifact
from tests.killed import ended_before_each_rename

pytest.importorskip("accelerate")
from mvde.checkpoint import read_tensors

pytestmark = pytest.mark.extended
SIGNALS = [signal.SIGKILL, signal.SIGTERM]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with the configuration of a training of two steps on four frames."""
    folder = tmp_path / "kept"
    (folder / "tower").mkdir(parents=True)
    about = {"model_type": "siglip_vision_model", "patch_size": 16, "image_size": 32, **SIZES}
    (folder / "tower" / "config.json").write_text(json.dumps(about))
    for kind in ("rgb", "depth"):
        (folder / "data" / kind).mkdir(parents=True)
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "data/rgb" / f"{index}.png")
        Image.fromarray(np.full((32, 32), 1000 + 500 * index, np.uint16)).save(folder / "data/depth" / f"{index}.png")
    settings: dict[str, Any] = {
        "name": "tiny",
        "vit": {"name": "tower", "tap_layers": [1, 2, 3, 4], "image_size": 32, "pretrained": False},
        "decoder": {"c_dec": 16},
        "train": {"res": 32, "batch_size": 2, "steps": 2, "num_workers": 0, "autocast": "none", "tracker": "none"},
        "data": {"train": "data"},
    }
    settings["train"] |= {"freeze_backbone_steps": 0, "warmup_steps": 0}
    (folder / "tiny.yaml").write_text(json.dumps(settings))  # JSON is valid YAML
    return folder


STOPPED = 130
"""A training ends its step and writes its state after either signal."""


@pytest.mark.parametrize("number", SIGNALS)
def test_an_export_leaves_the_graph_that_was_there(
    number: signal.Signals, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb = ["export", "--config", "tiny.yaml", "--random-weights", "--res", "32x48", "--out", "graphs"]
    monkeypatch.chdir(kept)
    assert cli.execute(verb) == 0
    folder, num_ended = tmp_path / "folder", 0
    for step, status in ended_before_each_rename([*verb, "--opset", "20"], number, kept, folder):
        graph = load_artifact(folder / "graphs" / "tiny-32x48.onnx").manifest
        assert status in (0, -signal.SIGKILL, 128 + signal.SIGTERM), step
        assert graph.opset in (20, 23), step
        assert status != 0 or graph.opset == 20
        num_ended += status != 0
    assert num_ended


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_goes_on_from_whole_tensors_to_the_same_weights(
    number: signal.Signals,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb = ["train", "--config", "tiny.yaml", "--output_dir", "run"]
    folder, finals = tmp_path / "folder", set()
    for step, status in ended_before_each_rename(verb, number, kept, folder):
        assert status in (0, -signal.SIGKILL, STOPPED), step
        for path in (folder / "run").rglob("*.safetensors"):
            read_tensors(path)  # compares the checksum
        monkeypatch.chdir(folder)
        assert cli.execute(verb) == 0, capsys.readouterr().err
        finals.add((folder / "run" / "last.safetensors").read_bytes())
    assert step > 1
    assert len(finals) == 1
