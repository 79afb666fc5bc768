"""Batches as a function of the step number, independent of the number of processes and of interruptions."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mvde.config import StageConfig, TrainConfig
from mvde.datasets.sample import DepthDataset
from mvde.errors import DatasetError, UsageError
from mvde.pipelines.augment import draw_transform, jitter_colours, transform_sample
from mvde.resolution import parse_resolution

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_ORDERS = 2
"""Orders of epochs kept: that of the running epoch, and of the next, which a batch may reach into."""


@dataclass(frozen=True)
class Share:
    """Share of this process in each global batch."""

    rank: int = 0
    num_processes: int = 1

    def of(self, batch_size: int) -> slice:
        """Slice of ``batch_size`` samples for this process. Raises UsageError if it does not divide evenly."""
        if batch_size % self.num_processes:
            raise UsageError(
                f"a global batch of {batch_size} cannot be divided evenly among {self.num_processes} processes; "
                f"make train.batch_size a multiple of {self.num_processes}"
            )
        part = batch_size // self.num_processes
        return slice(self.rank * part, (self.rank + 1) * part)


class StepBatches(Dataset[tuple[Tensor, Tensor]]):
    """Map-style data set: item ``step`` is this process's share of that step's batch.

    Images (b, 3, H, W) float32 in [0, 1] and depth (b, H, W) float32 in metres, in the canonical camera if there is
    one. All randomness of a step derives from (seed, step), and frames are drawn without replacement per epoch, so a
    resume needs no stored state.
    """

    def __init__(
        self, config: TrainConfig, datasets: list[DepthDataset], share: Share, canonical_focal: float | None = None
    ) -> None:
        self._config = config
        self._canonical_focal = canonical_focal
        self._stages = config.all_stages()
        self._datasets = datasets
        self._share = share
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._ends = list(accumulate(stage.steps for stage in self._stages))
        for stage, dataset in zip(self._stages, datasets, strict=True):
            share.of(stage.batch_size)
            if len(dataset) == 0:
                raise DatasetError(f"the data set {stage.data or 'of data.train'} holds no frames; nothing to train on")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        index = bisect.bisect_right(self._ends, step)
        stage, dataset = self._stages[index], self._datasets[index]
        step_in_stage = step - (self._ends[index - 1] if index else 0)
        rng = np.random.default_rng([self._config.seed, step])
        size = parse_resolution(stage.res[int(rng.integers(len(stage.res)))])
        frames = self._frames(stage, len(dataset), index, step_in_stage)
        transforms = [draw_transform(rng, self._config.augment) for _ in frames]
        part = self._share.of(stage.batch_size)
        pairs = [
            transform_sample(dataset[frame], size, transform, self._canonical_focal)
            for frame, transform in zip(frames[part], transforms[part], strict=True)
        ]
        images = jitter_colours(torch.stack([image for image, _ in pairs]), transforms[part])
        return images, torch.from_numpy(np.stack([depth for _, depth in pairs]))

    def _frames(self, stage: StageConfig, num_frames: int, index: int, step_in_stage: int) -> list[int]:
        first = step_in_stage * stage.batch_size
        positions = range(first, first + stage.batch_size)
        return [int(self._order(index, num_frames, place // num_frames)[place % num_frames]) for place in positions]

    def _order(self, index: int, num_frames: int, epoch: int) -> NDArray[np.int64]:
        """Order of the frames of a stage's data set in an epoch; drawn once, since ten million take half a second."""
        key = (index, epoch)
        if key not in self._orders:
            while len(self._orders) >= _MAX_ORDERS:
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = np.random.default_rng([self._config.seed, index, epoch, 1]).permutation(num_frames)
        return self._orders[key]


def batches_from(source: StepBatches, first_step: int, num_workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over batches from ``first_step`` in order, prefetched by ``num_workers`` processes (0: none)."""
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=range(first_step, len(source)),
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        # Without its own generator, the loader would draw a seed from the one that a resumed run restores.
        generator=torch.Generator(),
    )
    return iter(loader)
