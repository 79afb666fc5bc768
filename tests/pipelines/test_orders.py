"""Frames are drawn once an epoch, from few shards at a time, by lanes that do not depend on the processes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from mvde.config import DataConfig
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, UsageError
from mvde.pipelines.orders import ShuffledFrames, ShuffledShards, frame_order, shards_in_reach

SIZES = (7, 5, 6, 1, 8, 4, 3)
SHARD_OF = np.repeat(np.arange(len(SIZES)), SIZES)


class Sharded:
    """A data set of shards that holds no pictures."""

    depth_range_m = (0.1, 10.0)

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.shard_sizes = sizes

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    def __getitem__(self, index: int) -> DepthSample:
        raise AssertionError("an order reads no frame")

    def check_shards(self, shards: Iterable[int]) -> None:
        raise AssertionError("an order opens no shard")


def drawn(order: ShuffledShards | ShuffledFrames, num_steps: int, batch_size: int) -> list[int]:
    return [frame for step in range(num_steps) for frame in order.frames(step, batch_size)]


def test_a_flat_set_is_drawn_in_the_permutation_of_its_seed() -> None:
    """As before there were shards: a run of an earlier version goes on with the same batches."""
    seed, stage = 3, 1
    epochs = [np.random.default_rng([seed, stage, epoch, 1]).permutation(10) for epoch in range(3)]
    assert drawn(ShuffledFrames(10, (seed, stage)), 5, 6) == np.concatenate(epochs).tolist()


@pytest.mark.parametrize("window", [1, 3, 100])
def test_every_frame_of_every_shard_is_drawn_once_an_epoch(window: int) -> None:
    total = sum(SIZES)
    frames = drawn(ShuffledShards(SIZES, 1, window, (0, 0)), 2 * total, 1)
    assert sorted(frames[:total]) == sorted(frames[total:]) == list(range(total))
    assert frames[:total] != frames[total:]


def test_a_window_holds_the_frames_of_its_shards_only() -> None:
    frames = drawn(ShuffledShards(SIZES, 1, 2, (5, 0)), sum(SIZES), 1)
    shards = [int(SHARD_OF[frame]) for frame in frames]
    order = list(dict.fromkeys(shards))
    assert order != sorted(order)
    place = 0
    for first in range(0, len(order), 2):
        window = order[first : first + 2]
        size = sum(SIZES[shard] for shard in window)
        assert set(shards[place : place + size]) == set(window)
        place += size


def test_frames_within_a_window_are_mixed() -> None:
    frames = drawn(ShuffledShards((50, 50), 1, 2, (0, 0)), 100, 1)
    changes = np.count_nonzero(np.diff(np.array(frames) // 50))
    assert 35 < changes < 65  # 50 expected of a random order, with a deviation of 5; one shard after the other has 1


def test_any_step_can_be_asked_for_first() -> None:
    whole = ShuffledShards(SIZES, 2, 2, (1, 0))
    batches = [whole.frames(step, 4) for step in range(30)]
    for step in (0, 7, 13, 29):
        assert ShuffledShards(SIZES, 2, 2, (1, 0)).frames(step, 4) == batches[step]


def test_a_process_needs_the_shards_of_its_lanes_only() -> None:
    lanes, batch_size = 4, 8
    order = ShuffledShards(SIZES, lanes, 2, (1, 0))
    seen: list[set[int]] = []
    for rank in range(2):
        part = slice(rank * 4, rank * 4 + 4)
        reach = shards_in_reach(part, batch_size, lanes, len(SIZES))
        used = {int(SHARD_OF[frame]) for step in range(40) for frame in order.frames(step, batch_size)[part]}
        assert used == set(reach)
        seen.append(used)
    assert seen == [{0, 1, 4, 5}, {2, 3, 6}]


def test_a_process_without_whole_lanes_reaches_all_that_its_part_touches() -> None:
    assert shards_in_reach(slice(0, 4), 8, 1, 3) == [0, 1, 2]
    assert shards_in_reach(slice(4, 8), 12, 2, 4) == [0, 1, 2, 3]
    assert shards_in_reach(slice(8, 12), 12, 2, 4) == [1, 3]


@pytest.mark.parametrize(
    ("lanes", "batch_size", "message"),
    [(8, 8, "needs at least one"), (3, 8, "multiple of 3")],
)
def test_lanes_that_suit_neither_set_nor_batch_are_refused(lanes: int, batch_size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        frame_order(Sharded(SIZES), batch_size, DataConfig(lanes=lanes), 0, 0)


def test_a_lane_of_empty_shards_is_refused() -> None:
    with pytest.raises(DatasetError, match="empty shards"):
        frame_order(Sharded((3, 0)), 2, DataConfig(lanes=2), 0, 0)
