"""Training on rendered frames: their order, the fitted schedule, and the whole command in small."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moderngl")

from mvde.config import AugmentConfig, Config, StageConfig, TrainConfig, load_config
from mvde.datasets.formats import open_dataset
from mvde.datasets.sample import DepthSample
from mvde.datasets.synth.rendered import StoredFrames, open_rendered
from mvde.datasets.synth.varied import VariedFrames
from mvde.errors import ConfigError
from mvde.pipelines.batches import Share
from mvde.pipelines.rendered_training import RenderedBatches, fitted_to

ROOT = Path(__file__).parents[2]
GPU_CONFIG = ROOT / "configs" / "nano-gpu.yaml"


class Numbered:
    """Frames whose depth is their number, and which record who was asked for."""

    depth_range_m = (0.05, 40.0)

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, index: int) -> DepthSample:
        self.asked.append(index)
        depth = np.full((32, 32), 1 + index, np.float32)
        return DepthSample(np.zeros((32, 32, 3), np.uint8), depth, np.array([32, 32, 16, 16], np.float32), str(index))


def config_of(*stages: StageConfig) -> Config:
    train = TrainConfig(stages=stages, augment=AugmentConfig(crop_min_scale=1.0))
    return Config(train=train)


def test_every_frame_is_new_and_those_of_a_scene_come_together() -> None:
    config = config_of(StageConfig(2, ("32",), 4), StageConfig(2, ("16x32",), 8))
    data = Numbered()
    batches = RenderedBatches(config, [data, data], Share())
    shapes = [tuple(batches[step][1].shape) for step in range(4)]
    assert shapes == [(4, 32, 32), (4, 32, 32), (8, 16, 32), (8, 16, 32)]
    assert data.asked == list(range(24))


def test_processes_share_a_batch_and_a_step_repeats() -> None:
    config = config_of(StageConfig(3, ("32",), 4))
    parts = [RenderedBatches(config, [Numbered()], Share(rank, 2))[2] for rank in (0, 1)]
    whole = RenderedBatches(config, [Numbered()], Share())[2]
    np.testing.assert_array_equal(np.concatenate([depth for _, depth in parts]), whole[1])


def test_validation_frames_are_rendered_once() -> None:
    data = Numbered()
    stored = StoredFrames(data)  # type: ignore[arg-type]
    assert stored[3] is stored[3]
    assert data.asked == [3]
    assert stored.depth_range_m == data.depth_range_m


def test_the_schedule_is_fitted_to_the_time_in_the_same_proportions() -> None:
    config = load_config(GPU_CONFIG)
    stages = config.train.all_stages()
    seconds = [0.01 * (number + 1) for number in range(len(stages))]
    fitted = fitted_to(config, seconds, 100.0)
    steps = [stage.steps for stage in fitted.train.all_stages()]
    assert sum(count * s for count, s in zip(steps, seconds, strict=True)) == pytest.approx(100.0, rel=0.01)
    shares = [count / stage.steps for count, stage in zip(steps, stages, strict=True)]
    assert max(shares) == pytest.approx(min(shares), rel=0.05)
    assert fitted.train.decay_steps < sum(steps)
    assert fitted_to(config, seconds, 0.001).train.all_stages()[0].steps == 1


def test_the_schedule_holds_every_kind_of_the_four_parts() -> None:
    config = load_config(GPU_CONFIG)
    parts = [load_config(ROOT / "configs" / f"nano{name}.yaml") for name in ("", "-continue", "-tokens", "-rooms")]
    assert config.vit == parts[-1].vit
    assert dataclasses.replace(config.decoder, max_depth=10.0) == parts[-1].decoder
    assert {s.supervise for s in config.train.all_stages()} == {
        s.supervise for p in parts for s in p.train.all_stages()
    }
    assert config.train.start == parts[0].train.start


@pytest.mark.parametrize(
    "name", ["rendered:", "rendered:9999", "rendered:2x2", "rendered:64?sed=1", "rendered:64?seed=x"]
)
def test_a_name_that_says_no_rendered_set_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected rendered:SIDE"):
        open_dataset("synthetic", name)


def test_a_rendered_set_is_opened_in_the_place_of_a_folder() -> None:
    endless = open_dataset("synthetic", "rendered:64?seed=3")
    assert isinstance(endless, VariedFrames)
    assert len(endless) > 10**6
    validation = open_rendered("rendered:64?split=val&length=8")
    assert isinstance(validation, StoredFrames)
    assert len(validation) == 8


@pytest.mark.extended
def test_the_command_runs_in_small_with_rendering_workers(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "bin" / "nano_gpu.py"), "--small", "--workers", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 5e6 < (out / "nano.safetensors").stat().st_size < 7e6
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("val_abs_rel" in row for row in rows)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
