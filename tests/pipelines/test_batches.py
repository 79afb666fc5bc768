"""Batches depend on the step alone, not on the number of processes or the first step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from mvde.config import AugmentConfig, StageConfig, TrainConfig
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, UsageError
from mvde.pipelines.batches import Share, StepBatches, batches_from


class NumberedFrames:
    """Frames whose depth is their index plus one."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DepthSample:
        rgb = np.full((16, 16, 3), index, np.uint8)
        return DepthSample(rgb, np.full((16, 16), index + 1, np.float32), None, str(index))


def config(**changes: object) -> TrainConfig:
    stages = (StageConfig(5, ("16",), 6), StageConfig(4, ("16", "32x16"), 4))
    augment = AugmentConfig(crop_min_scale=1.0)
    return TrainConfig(**{"stages": stages, "augment": augment, "seed": 3} | changes)  # type: ignore[arg-type]


def batches(num_frames: int = 10, share: Share = Share(), **changes: object) -> StepBatches:  # noqa: B008 (frozen)
    made = config(**changes)
    return StepBatches(made, [NumberedFrames(num_frames)] * len(made.all_stages()), share)


def same(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_parts_of_all_processes_make_the_batch_of_one() -> None:
    whole, parts = batches(), [batches(share=Share(rank, 2)) for rank in range(2)]
    for step in range(len(whole)):
        images, depth = (torch.cat(tensors) for tensors in zip(*(part[step] for part in parts), strict=True))
        assert same((images, depth), whole[step])


def test_starting_late_gives_the_same_batches(capsys: pytest.CaptureFixture[str]) -> None:
    whole = list(batches_from(batches(), 0, 0))
    assert len(whole) == 9
    late = list(batches_from(batches(), 4, 0))
    assert all(same(a, b) for a, b in zip(whole[4:], late, strict=True))


def test_a_worker_process_changes_nothing() -> None:
    assert all(same(a, b) for a, b in zip(batches_from(batches(), 6, 0), batches_from(batches(), 6, 1), strict=True))


def test_every_frame_is_seen_once_per_epoch() -> None:
    made = batches(num_frames=10)
    seen = Counter(int(d[0, 0]) - 1 for step in range(5) for d in made[step][1])
    assert seen == dict.fromkeys(range(10), 3)  # 5 steps of 6 are three epochs


def test_epochs_and_seeds_differ_in_their_order() -> None:
    first, second = batches(num_frames=6)[0][1], batches(num_frames=6)[1][1]
    assert not torch.equal(first, second)
    assert not torch.equal(first, batches(num_frames=6, seed=4)[0][1])


def test_stages_have_their_own_sizes() -> None:
    made = batches()
    assert {tuple(made[step][0].shape) for step in range(5)} == {(6, 3, 16, 16)}
    assert {tuple(made[step][0].shape) for step in range(5, 9)} <= {(4, 3, 16, 16), (4, 3, 32, 16)}


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        batches(share=Share(0, 4))


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DatasetError, match="no frames"):
        batches(num_frames=0)
