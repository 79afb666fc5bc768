"""Orders in which training frames are drawn, as functions of the seed, the stage and the step alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from mvde.datasets.sample import DepthDataset, ShardedDataset
from mvde.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.config import DataConfig

K = TypeVar("K")
T = TypeVar("T")

_FRAMES, _SHARDS, _WINDOW = 1, 2, 3
"""Last numbers of the seeds: the order of all frames, of a lane's shards, and of the frames in a window."""


class FrameOrder(Protocol):
    """Order of a stage's frames; each is drawn once an epoch."""

    def frames(self, step: int, batch_size: int) -> list[int]:
        """Indices of the frames of the global batch of a step, counted from the start of the stage."""
        ...


def frame_order(dataset: DepthDataset, batch_size: int, data: DataConfig, seed: int, stage: int) -> FrameOrder:
    """Order of a stage's frames: shard-major for a data set in shards, else over the whole set.

    Raises UsageError for a number of lanes that does not suit set or batch, DatasetError for a lane without frames.
    """
    if isinstance(dataset, ShardedDataset):
        check_lanes(data.lanes, len(dataset.shard_sizes), batch_size)
        return ShuffledShards(dataset.shard_sizes, data.lanes, data.shuffle_shards, (seed, stage))
    if data.lanes > 1:
        raise UsageError(
            f"data.lanes is {data.lanes}, but the format {data.format} has no shards to divide; set it to 1, or make "
            "shards with mvde data pack"
        )
    return ShuffledFrames(len(dataset), (seed, stage))


def check_lanes(lanes: int, num_shards: int, batch_size: int) -> None:
    """Raise UsageError unless a set of ``num_shards`` and a global batch can be divided into the lanes."""
    if lanes > num_shards:
        raise UsageError(
            f"data.lanes is {lanes}, but the data set has {num_shards} shards, and a lane needs at least one; lower "
            "data.lanes, or pack the set with a smaller --shard-frames"
        )
    if batch_size % lanes:
        raise UsageError(
            f"a global batch of {batch_size} cannot be divided evenly among {lanes} lanes; make train.batch_size a "
            f"multiple of {lanes}, or change data.lanes"
        )


def shards_in_reach(part: slice, batch_size: int, lanes: int, num_shards: int) -> list[int]:
    """Numbers of the shards that hold frames of a part of the global batches: those of its lanes."""
    a_lane = batch_size // lanes
    first, last = part.start // a_lane, (part.stop - 1) // a_lane
    return [shard for shard in range(num_shards) if first <= shard % lanes <= last]


class ShuffledFrames:
    """All frames in one random order an epoch; a frame takes 4 bytes of memory, or 8 from 2^32 frames on."""

    def __init__(self, num_frames: int, key: tuple[int, ...]) -> None:
        self._num_frames = num_frames
        self._key = key
        self._orders = _Last(self._draw)

    def frames(self, step: int, batch_size: int) -> list[int]:
        """Indices of the frames of a step's global batch."""
        found: list[int] = []
        while len(found) < batch_size:
            epoch, first = divmod(step * batch_size + len(found), self._num_frames)
            found += self._orders[epoch][first : first + batch_size - len(found)].tolist()
        return found

    def _draw(self, epoch: int) -> NDArray[np.unsignedinteger[Any]]:
        order = np.random.default_rng([*self._key, epoch, _FRAMES]).permutation(self._num_frames)
        return order.astype(np.min_scalar_type(self._num_frames))


class ShuffledShards:
    """Shard-major order: shards in random order, and the frames of ``window`` consecutive ones of them mixed.

    Shard ``i`` belongs to lane ``i % lanes`` in every epoch, and a batch is made of equal parts of the lanes, in their
    order, whatever the number of processes. A process whose part of the batch is that of some lanes opens their shards
    only. Each lane draws its frames once, then begins its next epoch; a lane of fewer frames does so earlier.
    """

    def __init__(self, sizes: Sequence[int], lanes: int, window: int, key: tuple[int, ...]) -> None:
        counts = np.asarray(sizes, np.int64)
        starts = np.cumsum(counts) - counts
        self._lanes = [_Lane(starts[lane::lanes], counts[lane::lanes], window, (*key, lane)) for lane in range(lanes)]

    def frames(self, step: int, batch_size: int) -> list[int]:
        """Indices of the frames of a step's global batch."""
        part = batch_size // len(self._lanes)
        return [frame for lane in self._lanes for frame in lane.frames(step * part, (step + 1) * part)]


class _Lane:
    """Endless order of the frames of some shards, ``counts`` frames from ``starts`` on."""

    def __init__(self, starts: NDArray[np.int64], counts: NDArray[np.int64], window: int, key: tuple[int, ...]) -> None:
        self._starts, self._counts, self._window, self._key = starts, counts, window, key
        self._num_frames = int(counts.sum())
        if self._num_frames == 0:
            raise DatasetError("a lane of the data set has only empty shards; lower data.lanes")
        self._epochs = _Last(self._draw_shards)
        self._mixed = _Last(self._mix)

    def frames(self, place: int, end: int) -> list[int]:
        """Indices of the frames from ``place`` up to ``end``, counted over all epochs."""
        found: list[int] = []
        while place < end:
            epoch, within = divmod(place, self._num_frames)
            _, ends = self._epochs[epoch]
            window = int(np.searchsorted(ends, within, side="right"))
            skipped = within - int(ends[window - 1]) if window else within
            taken = self._mixed[epoch, window][skipped : skipped + end - place].tolist()
            found += taken
            place += len(taken)
        return found

    def _draw_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in the order of an epoch, and the number of frames up to the end of each window."""
        order = np.random.default_rng([*self._key, epoch, _SHARDS]).permutation(len(self._counts))
        firsts = np.arange(0, len(order), self._window)
        return order, np.cumsum(np.add.reduceat(self._counts[order], firsts))

    def _mix(self, key: tuple[int, int]) -> NDArray[np.int64]:
        """Indices of the frames of a window of an epoch, in random order."""
        epoch, window = key
        order, _ = self._epochs[epoch]
        shards = order[window * self._window : (window + 1) * self._window]
        frames = np.concatenate(
            [np.arange(n) + first for first, n in zip(self._starts[shards], self._counts[shards], strict=True)]
        )
        np.random.default_rng([*self._key, epoch, window, _WINDOW]).shuffle(frames)
        return frames


class _Last(Generic[K, T]):
    """Result of ``draw`` for the last argument: places are asked for in ascending order, so one is enough."""

    def __init__(self, draw: Callable[[K], T]) -> None:
        self._draw = draw
        self._made: tuple[K, T] | None = None

    def __getitem__(self, key: K) -> T:
        if self._made is None or self._made[0] != key:
            self._made = None  # not in memory while the next one is drawn
            self._made = key, self._draw(key)
        return self._made[1]
