"""Data sets of a training run, and the checks that this process can read its part of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvde.config import Config
from mvde.datasets.formats import open_dataset
from mvde.datasets.sample import DepthDataset, ShardedDataset
from mvde.errors import DatasetError
from mvde.pipelines.batches import Share
from mvde.pipelines.orders import check_lanes, shards_in_reach
from mvde.pipelines.processes import gathered, together
from mvde.pipelines.validation import frames_of


@dataclass(frozen=True)
class TrainingData:
    """Data sets by path: those of the stages, in their order, and that of the validation, if any."""

    stages: tuple[tuple[str, DepthDataset], ...]
    validation: tuple[str, DepthDataset] | None


def open_data(config: Config, accelerator: Any, share: Share) -> TrainingData:
    """Open the data sets of a configuration, in every process.

    Raises DatasetError in all of them where one cannot open a set or lacks shards of its part, or where the numbers of
    frames differ, and UsageError for lanes that do not suit a set.
    """
    data = together(accelerator, lambda: _opened(config))
    _check_same(accelerator, data)
    together(accelerator, lambda: _check_shards(config, data, share))
    return data


def start_frames(config: Config, dataset: DepthDataset, batch_size: int, share: Share, most: int) -> Iterable[int]:
    """At most about ``most`` evenly spaced frames that the first process reads."""
    frames = np.arange(len(dataset))
    if isinstance(dataset, ShardedDataset):
        sizes = np.asarray(dataset.shard_sizes)
        first = Share(0, share.num_processes).of(batch_size)
        reach = shards_in_reach(first, batch_size, config.data.lanes, len(sizes))
        frames = frames[np.isin(np.repeat(np.arange(len(sizes)), sizes), reach)]
    return [int(frame) for frame in frames[:: max(len(frames) // most, 1)]]


def _opened(config: Config) -> TrainingData:
    data = config.data
    paths = [stage.data or data.train for stage in config.train.all_stages()]
    opened = {path: open_dataset(data.format, path, data.depth_scale) for path in dict.fromkeys(paths)}
    validation = None if data.val is None else (data.val, open_dataset(data.format, data.val, data.depth_scale))
    return TrainingData(tuple((path, opened[path]) for path in paths), validation)


def _check_same(accelerator: Any, data: TrainingData) -> None:
    """Raise DatasetError, in all processes, unless the sets have the same frames for all, as far as numbers show."""
    mine = {path: _numbers(dataset) for path, dataset in (*data.stages, *filter(None, [data.validation]))}
    for rank, theirs in enumerate(found := gathered(accelerator, mine)):
        for path, (count, _) in found[0].items():
            if (other := theirs.get(path, (0, 0))) != found[0][path]:
                held = f"{count} frames for process 0, but {other[0]} for process {rank}"
                raise DatasetError(f"{path} has {held}, or other shards; copy the same data set to all machines")


def _numbers(dataset: DepthDataset) -> tuple[int, int]:
    sizes = list(dataset.shard_sizes) if isinstance(dataset, ShardedDataset) else []
    return len(dataset), zlib.crc32(repr(sizes).encode())


def _check_shards(config: Config, data: TrainingData, share: Share) -> None:
    for stage, (_, dataset) in zip(config.train.all_stages(), data.stages, strict=True):
        if isinstance(dataset, ShardedDataset):
            num_shards, lanes = len(dataset.shard_sizes), config.data.lanes
            check_lanes(lanes, num_shards, stage.batch_size)
            dataset.check_shards(shards_in_reach(share.of(stage.batch_size), stage.batch_size, lanes, num_shards))
    if data.validation is not None and isinstance(dataset := data.validation[1], ShardedDataset):
        ends = np.cumsum(dataset.shard_sizes)
        frames = frames_of(share, len(dataset))
        if frames:
            first, last = np.searchsorted(ends, [frames.start, frames.stop - 1], side="right")
            dataset.check_shards(range(int(first), int(last) + 1))
