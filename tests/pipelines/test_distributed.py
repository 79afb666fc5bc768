"""Training on two processes equals training on one: batches, losses, weights, validation, resumption, and refusals.

Each process of a run has an output folder of its own, as on machines without a shared disk.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from mvde.datasets.folder import FolderDataset  # noqa: E402
from mvde.datasets.formats import ShardKind  # noqa: E402
from mvde.datasets.pack import pack  # noqa: E402
from mvde.pipelines.batches import Share  # noqa: E402
from mvde.pipelines.validation import frames_of  # noqa: E402
from tests.pipelines.process_runs import Run, train  # noqa: E402

STEPS = 4
# The backbone is unfrozen at step 2 and the decoder frozen in the last step, which covers both transitions.
STAGES = [{"steps": STEPS - 1, "res": [32]}, {"steps": 1, "res": [32], "supervise": "tokens"}]

slow = pytest.mark.slow  # their processes come from a server that imports torch and transformers first


def losses(outcome: dict[str, Any]) -> list[float]:
    lines = [line.split() for line in outcome["output"].splitlines() if line.startswith("step ")]
    return [float(words[words.index("loss") + 1]) for words in lines]


@pytest.fixture(scope="module")
def shards_dir(frames_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eleven frames in six shards."""
    root = tmp_path_factory.mktemp("shards") / "shards"
    pack(FolderDataset(frames_dir), root, ShardKind.WEBDATASET, 2, "frames")
    return root


@pytest.fixture(scope="module")
def many_dir(frames_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eleven frames three times: three batches of validation, the last of one frame."""
    root = tmp_path_factory.mktemp("many")
    for kind in ("rgb", "depth"):
        (root / kind).mkdir()
        for copied in range(3):
            for path in (frames_dir / kind).iterdir():
                shutil.copy(path, root / kind / f"{copied}-{path.name}")
    return root


def without(shards: Path, numbers: range | list[int], to: Path) -> Path:
    """Copy of a set of shards that lacks some of them."""
    shutil.copytree(shards, to)
    for number in numbers:
        for path in to.glob(f"shard-{number:06d}*"):
            path.unlink()
    return to


def trained(config: dict[str, Any], *folders: Path) -> list[dict[str, Any]]:
    """Outcomes of a run that ends well, by process."""
    outcomes = train(Run(config, folders))
    assert [outcome["trace"] for outcome in outcomes if "error" in outcome] == []
    return outcomes


def assert_near(one: Path, other: Path) -> None:
    ours, theirs = load_file(one), load_file(other)
    for name in ours:
        # Adam normalises gradients, so rounding of a tiny one can become a fraction of a step (2e-3).
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3)


@slow
def test_two_processes_that_accumulate_gradients_train_and_validate_as_one_that_does_not(
    tiny_config: Callable[..., dict[str, Any]], many_dir: Path, tmp_path: Path
) -> None:
    config = tiny_config(stages=STAGES, freeze_backbone_steps=2, validate_every=1)
    config["data"]["val"] = str(many_dir)
    (alone,) = trained(config, tmp_path / "alone")
    config["train"]["accumulation"] = 2
    together = trained(config, tmp_path / "first", tmp_path / "second")
    assert len(losses(alone)) == STEPS
    # Printed to four decimals; summation order differs.
    assert losses(together[0]) == pytest.approx(losses(alone), abs=2e-4)
    assert_near(tmp_path / "alone/last.safetensors", tmp_path / "first/last.safetensors")
    assert together[0]["metrics"] == together[1]["metrics"]
    # Weights differ by the order of sums.
    assert together[0]["metrics"] == pytest.approx(alone["metrics"], rel=1e-3)
    assert not (tmp_path / "second").exists()


@slow
def test_figures_of_equal_weights_are_equal_bit_for_bit(
    tiny_config: Callable[..., dict[str, Any]], many_dir: Path, tmp_path: Path
) -> None:
    config = tiny_config(stages=[{"steps": 1, "res": [32]}], lr=1e-30)  # changes no weight in float32
    config["data"]["val"] = str(many_dir)
    (alone,) = trained(config, tmp_path / "alone")
    for outcome in trained(config, tmp_path / "first", tmp_path / "second"):
        assert outcome["metrics"] == alone["metrics"]


@slow
def test_a_state_is_read_by_the_first_process_for_all(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = tiny_config(stages=[{"steps": 2, "res": [32]}])
    (alone,) = trained(config, tmp_path / "alone")
    longer = copy.deepcopy(config)
    longer["train"]["stages"][0]["steps"] = 4
    shutil.copytree(tmp_path / "alone", tmp_path / "first")
    (whole,) = trained(longer, tmp_path / "alone")
    together = trained(longer, tmp_path / "first", tmp_path / "second")
    assert "resuming" in together[0]["output"]
    assert [outcome["step"] for outcome in (alone, whole, *together)] == [2, 4, 4, 4]
    assert losses(together[0]) == pytest.approx(losses(whole), abs=2e-4)
    assert_near(tmp_path / "alone/state.safetensors", tmp_path / "first/state.safetensors")
    shutil.copytree(tmp_path / "first", tmp_path / "third")
    (tmp_path / "first/state.safetensors").unlink()
    for outcome in train(Run(longer, [tmp_path / "first", tmp_path / "third"])):
        assert outcome["error"].startswith("CheckpointError: the processes find different states")
        assert "none on" in outcome["error"]
        assert "but step 4" in outcome["error"]


@slow
def test_lanes_of_shards_give_the_batches_of_one_process_from_half_of_the_shards(
    tiny_config: Callable[..., dict[str, Any]], shards_dir: Path, tmp_path: Path
) -> None:
    config = tiny_config(stages=[{"steps": 4, "res": [32]}])
    config["data"] |= {"format": "shards", "train": str(shards_dir), "lanes": 2, "shuffle_shards": 2}
    del config["data"]["val"]
    (alone,) = trained(config, tmp_path / "alone")
    config["data"]["train"] = "data"  # in the folder of each process, as on a disk of its own
    folders = [tmp_path / name / "run" for name in ("first", "second")]
    for rank, folder in enumerate(folders):
        without(shards_dir, [number for number in range(6) if number % 2 != rank], folder.with_name("data"))
    together = trained(config, *folders)
    assert losses(together[0]) == pytest.approx(losses(alone), abs=2e-4)
    folders[1].with_name("data").joinpath("shard-000003.tar").unlink()
    for outcome in train(Run(config, folders)):
        assert outcome["error"].startswith("DatasetError: data lacks shards that this process reads: shard-000003.tar")
        assert "(process 1 of 2, on " in outcome["error"]


@pytest.mark.extended  # three processes of their own import torch and transformers
def test_the_launcher_of_accelerate_trains_with_the_batches_of_one_process(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = tiny_config(stages=STAGES, freeze_backbone_steps=2)
    (alone,) = trained(config, tmp_path / "alone")
    (tmp_path / "config.yaml").write_text(json.dumps(config))  # JSON is valid YAML
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "mvde", "train", "--config", str(tmp_path / "config.yaml"), "--output_dir", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses({"output": done.stdout}) == pytest.approx(losses(alone), abs=2e-4)
    assert_near(tmp_path / "alone/last.safetensors", tmp_path / "run/last.safetensors")


def test_parts_of_the_validation_are_whole_batches_and_cover_the_frames() -> None:
    for num_frames in (0, 1, 16, 17, 33, 160, 1000):
        for num_processes in (1, 2, 3, 7):
            parts = [frames_of(Share(rank, num_processes), num_frames) for rank in range(num_processes)]
            assert [frame for part in parts for frame in part] == list(range(num_frames))
            assert all(part.start % 16 == 0 for part in parts if part)
