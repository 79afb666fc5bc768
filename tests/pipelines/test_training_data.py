"""Data sets of a run: every process can read its part, and all have the same frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from mvde.config import Config, DataConfig, TrainConfig  # noqa: E402
from mvde.datasets.folder import FolderDataset  # noqa: E402
from mvde.datasets.formats import ShardKind  # noqa: E402
from mvde.datasets.pack import pack  # noqa: E402
from mvde.errors import DatasetError, UsageError  # noqa: E402
from mvde.pipelines import training_data  # noqa: E402
from mvde.pipelines.batches import Share, StepBatches, batches_from  # noqa: E402
from mvde.pipelines.training_data import open_data, start_frames  # noqa: E402

ALONE = SimpleNamespace(num_processes=1)


@pytest.fixture
def config(frames_dir: Path, tmp_path: Path) -> Config:
    """Configuration of eleven frames in six shards, for training on two lanes and for validation."""
    root = tmp_path / "shards"
    pack(FolderDataset(frames_dir), root, ShardKind.WEBDATASET, 2, "frames")
    data = DataConfig(format="shards", train=str(root), val=str(root), lanes=2, shuffle_shards=2)
    return Config(train=TrainConfig(res=(16, 16), batch_size=4, steps=6), data=data)


def remove(config: Config, *numbers: int) -> None:
    for number in numbers:
        Path(config.data.train, f"shard-{number:06d}.tar").unlink()


def test_a_process_asks_for_its_shards_only(config: Config) -> None:
    config = replace(config, data=replace(config.data, val=None))
    remove(config, 1, 3)
    open_data(config, ALONE, Share(0, 2))
    with pytest.raises(DatasetError, match=r"shard-000001\.tar: No such file.*shard-000003\.tar"):
        open_data(config, ALONE, Share(1, 2))


def test_the_validation_needs_the_shards_of_its_part(config: Config) -> None:
    remove(config, 1)
    with pytest.raises(DatasetError, match=r"shard-000001\.tar"):
        open_data(config, ALONE, Share(0, 2))  # the only whole batch of eleven frames


def test_sets_that_differ_between_processes_are_refused_by_all(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.data.train
    monkeypatch.setattr(training_data, "gathered", lambda accelerator, mine: [mine, {path: (10, mine[path][1])}])
    with pytest.raises(DatasetError, match=r"11 frames for process 0, but 10 for process 1.*copy the same data set"):
        open_data(config, ALONE, Share())


def test_lanes_of_a_set_without_shards_are_refused(config: Config, frames_dir: Path) -> None:
    data = replace(config.data, format="folder", train=str(frames_dir), val=None)
    opened = open_data(replace(config, data=data), ALONE, Share())
    with pytest.raises(UsageError, match=r"lanes is 2, but the format folder has no shards.*mvde data pack"):
        StepBatches(config.train, [dataset for _, dataset in opened.stages], Share(), data=data)


def test_the_start_takes_frames_of_the_first_process_only(config: Config) -> None:
    ((_, dataset),) = open_data(config, ALONE, Share()).stages
    assert list(start_frames(config, dataset, 4, Share(0, 2), 100)) == [0, 1, 4, 5, 8, 9]
    assert list(start_frames(config, dataset, 4, Share(0, 2), 3)) == [0, 4, 8]
    assert list(start_frames(config, dataset, 4, Share(), 100)) == list(range(11))


def test_batches_of_shards_come_from_a_worker_process_as_from_this_one(config: Config) -> None:
    ((_, dataset),) = open_data(config, ALONE, Share()).stages
    batches = StepBatches(config.train, [dataset], Share(), data=config.data)
    here = list(batches_from(batches, 0, 0))  # opens shards, which the worker must open again
    for (images, depth), (other_images, other_depth) in zip(here, batches_from(batches, 0, 1), strict=True):
        assert images.equal(other_images)
        assert depth.equal(other_depth)
    halves = [StepBatches(config.train, [dataset], Share(rank, 2), data=config.data)[3][1] for rank in range(2)]
    assert here[3][1].equal(torch.cat(halves))
