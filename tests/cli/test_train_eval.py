"""The commands ``mvde train`` and ``mvde eval``."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvde import cli
from mvde.datasets.splits import Split
from mvde.datasets.synthetic import SyntheticIndex, frame_checksums, shard_paths

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

TOWER = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """YAML configuration of two steps on four frames."""
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text(json.dumps(TOWER))
    for kind in ("rgb", "depth"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data/rgb" / f"{index}.png")
        Image.fromarray(np.full((32, 32), 1000 + 500 * index, np.uint16)).save(tmp_path / "data/depth" / f"{index}.png")
    settings: dict[str, Any] = {
        "name": "tiny",
        "vit": {"name": str(tmp_path / "tower"), "tap_layers": [1, 2, 3, 4], "image_size": 32, "pretrained": False},
        "decoder": {"c_dec": 16},
        "train": {
            "res": 32,
            "batch_size": 2,
            "steps": 2,
            "freeze_backbone_steps": 0,
            "warmup_steps": 0,
            "num_workers": 0,
        },
        "data": {"train": str(tmp_path / "data")},
    }
    settings["train"] |= {"autocast": "none", "tracker": "none"}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(settings))  # JSON is valid YAML
    return path


def train(config: Path, *more: str) -> int:
    return cli.execute(["train", "--config", str(config), "--output_dir", str(config.parent / "run"), *more])


def evaluate(config: Path, *more: str) -> int:
    checkpoint = config.parent / "run" / "last.safetensors"
    return cli.execute(["eval", str(checkpoint), "--data", str(config.parent / "data"), *more])


def test_train_then_eval_gives_a_table_and_json(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert train(config, "train.steps=1", "train.lr=1e-4") == 0
    assert "step 1/1 " in capsys.readouterr().out
    report = config.parent / "metrics.json"
    assert evaluate(config, "--align", "none", "--align", "median", "--json", str(report)) == 0
    shown = capsys.readouterr().out
    assert "32x32" in shown
    metrics = json.loads(report.read_text())
    assert len(metrics["alignments"]["none"]["overall"]) >= 9
    for name, value in metrics["alignments"]["none"]["overall"].items():  # untruncated on an 80-column terminal
        assert re.search(
            rf"│ {name} +│ +{value:.4f} │ +{metrics['alignments']['median']['overall'][name]:.4f} │", shown
        )
    assert set(metrics["alignments"]) == {"none", "median"}
    assert metrics["alignments"]["median"]["num_images"] == 4
    assert set(metrics["alignments"]["none"]["per_image"]) == {f"{k}.png" for k in range(4)}


def test_eval_knows_the_camera_of_each_frame_or_assumes_the_canonical_one(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mvde.model import DepthModel

    settings = json.loads(config.read_text())
    settings["decoder"]["canonical_focal"] = 0.5
    (config.parent / "run").mkdir()
    model = DepthModel(settings)
    model.save(config.parent / "run" / "last.safetensors")
    rgb = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    depth_m = model.predict_depth(torch.from_numpy(rgb).permute(0, 3, 1, 2)).numpy()
    frames = tmp_path / "data"
    depth_mm = np.round(2000 * depth_m).astype(np.uint16)  # twice as far, consistent with f
    parts = (rgb, depth_mm, np.array([[32, 32, 16, 16]], np.float32))
    checksums = np.array([frame_checksums(*(part[0] for part in parts))], np.uint32)
    for path, values in zip(shard_paths(frames, 0), (*parts, checksums), strict=True):
        np.save(path, values)
    SyntheticIndex(seed=0, split=Split.TRAIN, size=(32, 32), count=1, done=[1]).write(frames)
    found = []
    options = ([], ["--assume-camera"], ["--camera", "16,16,16,16"], ["--fov", "53.130102x53.130102"])  # f / W of 1
    for flags in options:
        assert evaluate(config, "--format", "synthetic", "--json", str(tmp_path / "metrics.json"), *flags) == 0
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert f"camera {metrics['camera']}" in " ".join(capsys.readouterr().out.split())
        assert metrics["canonical_focal"] == 0.5
        found.append((metrics["camera"], metrics["alignments"]["none"]["overall"]["abs_rel"]))
    exact, half = pytest.approx(0.0, abs=1e-3), pytest.approx(0.5, abs=1e-3)
    assert found == [("known", exact), ("assumed", half), ("given", half), ("given", exact)]
    assert evaluate(config, "--format", "synthetic", "--fov", "60x60", "--assume-camera") == 2
    assert "leave one of them out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("unknown", "camera", "text"),
    [
        ((), "known", "camera known"),
        ((3,), "mixed", "camera known for 3 of 4 images, assumed for the others"),
        ((0, 1), "mixed", "camera known for 2 of 4 images, assumed for the others"),
        ((0, 1, 2, 3), "assumed", "camera assumed"),
    ],
)
def test_eval_counts_the_frames_whose_camera_is_known(
    unknown: tuple[int, ...],
    camera: str,
    text: str,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mvde.datasets.folder import FolderDataset
    from mvde.model import DepthModel

    monkeypatch.setenv("COLUMNS", "200")
    settings = json.loads(config.read_text())
    settings["decoder"]["canonical_focal"] = 0.5
    (config.parent / "run").mkdir()
    DepthModel(settings).save(config.parent / "run" / "last.safetensors")
    (config.parent / "data" / "intrinsics.txt").write_text("32 32 16 16\n")
    read = FolderDataset.__getitem__

    def without_some(self: FolderDataset, index: int) -> object:
        sample = read(self, index)
        return replace(sample, intrinsics=None) if index in unknown else sample

    monkeypatch.setattr(FolderDataset, "__getitem__", without_some)
    report = config.parent / "metrics.json"
    assert evaluate(config, "--json", str(report)) == 0
    assert text in " ".join(capsys.readouterr().out.split())
    metrics = json.loads(report.read_text())
    assert (metrics["camera"], metrics["num_images_with_camera"]) == (camera, 4 - len(unknown))


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.learning=1", "learning"),
        ("train.lr", "is not an assignment"),
        ("train.lr=fast", "train.lr"),
        ("train.lr=.inf", "train.lr must be positive, but got inf; give a finite number"),
        ("train.optimizer=sgd", "adamw, muon"),
        ("data.format=zip", "data.format"),
    ],
)
def test_a_wrong_override_is_one_clear_line(
    config: Path, capsys: pytest.CaptureFixture[str], override: str, text: str
) -> None:
    assert train(config, override) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (config.parent / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["train.lr=1e30", "train.steps=4"], "training diverged at step 2, the values are not finite"),
        (["data.depth_scale=1"], "had no pixel with depth of 0.1 to 10 m"),
    ],
)
def test_a_training_that_fails_is_one_line_and_leaves_no_checkpoint(
    config: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], text: str
) -> None:
    assert train(config, *overrides) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert list((config.parent / "run").glob("*.safetensors")) == []


def test_a_missing_configuration_or_data_set_is_one_clear_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config.with_name("absent.yaml")) == 2
    assert "absent.yaml" in capsys.readouterr().err
    assert train(config, "data.train=nowhere") == 1
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert error.count("\n") == 1


def test_an_interrupted_training_says_how_to_go_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvde.pipelines.train_depth import DepthTrainingPipeline

    monkeypatch.setattr(
        DepthTrainingPipeline, "_should_stop", lambda self: setattr(self, "_stop_requested", True) or True
    )
    assert train(config) == 130
    assert "stopped after step 1 of 2; the same command resumes from there" in capsys.readouterr().err
    monkeypatch.undo()
    assert train(config) == 0
    assert "resuming" in capsys.readouterr().out


def test_eval_refuses_an_unknown_alignment_format_or_checkpoint(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(config) == 1
    assert "last.safetensors" in capsys.readouterr().err
    assert train(config) == 0
    assert cli.execute(["eval", str(config.parent / "run" / "last.safetensors")]) == 2
    assert "name the data set: --data FOLDER" in capsys.readouterr().err
    assert evaluate(config, "--res", "32", "--res", "64") == 2
    assert "mvde eval takes one resolution, but --res was given 2 times" in capsys.readouterr().err
    assert evaluate(config, "--align", "mean") == 2
    assert "scale_shift" in capsys.readouterr().err
    assert evaluate(config, "--format", "zip") == 2
    assert evaluate(config, "--res", "20") == 2


def test_eval_says_how_it_counts_and_counts_what_the_model_cannot_say(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mvde.model import DepthModel

    settings = json.loads(config.read_text())
    settings["decoder"] |= {"max_depth": 1.0}  # as for relative models
    (config.parent / "run").mkdir()
    DepthModel(settings).save(config.parent / "run" / "last.safetensors")
    report = tmp_path / "metrics.json"
    assert evaluate(config, "--json", str(report)) == 0  # the truth is 1 to 2.5 m
    assert "range 0.001-1000 m, crop none, split all frames, averaged over images; 100.0% of the" in (
        capsys.readouterr().out
    )
    metrics = json.loads(report.read_text())
    assert (metrics["protocol"]["range_m"], metrics["valid_range"]) == ([1e-3, 1000.0], [0.1, 1.0])
    assert metrics["ground_truth_counted"] == 1
    assert metrics["alignments"]["none"]["num_images"] == 4
    assert evaluate(config, "--range", "0.5,1.7", "--averaging", "pixels", "--json", str(report)) == 0
    assert "range 0.5-1.7 m" in (shown := capsys.readouterr().out)
    assert "averaged over pixels; 50.0% of the ground truth evaluated" in shown
    assert set(json.loads(report.read_text())["alignments"]["none"]["averages"]) == {"images", "pixels"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--range", "5"], "--range is MIN,MAX in metres"),
        (["--range", "5,1"], "0 <= MIN < MAX"),
        (["--protocol", "nyu-eigen"], "--protocol nyu-eigen is for --format nyu, not folder"),
        (
            ["--protocol", "kitti-garg", "--format", "kitti", "--split", "val"],
            "the split test; leave --split val out",
        ),
        (["--split", "test"], "format folder has no test split"),
        (["--depth-scale", "inf"], "--depth-scale is a positive number"),
        (["--protocol", "kitti"], "kitti-garg"),
    ],
)
def test_eval_refuses_what_does_not_go_together(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    assert evaluate(config, *options) == 2
    assert text in " ".join(capsys.readouterr().err.split())
