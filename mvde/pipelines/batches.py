"""Batches as a function of the step number, independent of the number of processes and of interruptions."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mvde.config import DataConfig, TrainConfig
from mvde.datasets.sample import DepthDataset
from mvde.errors import DatasetError, UsageError
from mvde.pipelines.augment import draw_transform, jitter_colours, transform_sample
from mvde.pipelines.orders import frame_order
from mvde.resolution import parse_resolution


@dataclass(frozen=True)
class Share:
    """Share of this process in each global batch; it is computed in ``accumulation`` equal pieces."""

    rank: int = 0
    num_processes: int = 1
    accumulation: int = 1

    def of(self, batch_size: int) -> slice:
        """Slice of ``batch_size`` samples for this process. Raises UsageError if it does not divide evenly."""
        if batch_size % self.num_processes:
            raise UsageError(
                f"a global batch of {batch_size} cannot be divided evenly among {self.num_processes} processes; "
                f"make train.batch_size a multiple of {self.num_processes}"
            )
        if batch_size // self.num_processes % self.accumulation:
            raise UsageError(
                f"a global batch of {batch_size} gives each of {self.num_processes} processes "
                f"{batch_size // self.num_processes} frames, which cannot be computed in {self.accumulation} equal "
                "pieces (train.accumulation); make train.batch_size a multiple of "
                f"{self.num_processes * self.accumulation}"
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
        self,
        config: TrainConfig,
        datasets: list[DepthDataset],
        share: Share,
        canonical_focal: float | None = None,
        data: DataConfig | None = None,
    ) -> None:
        self._config = config
        self._canonical_focal = canonical_focal
        self._stages = config.all_stages()
        self._datasets = datasets
        self._share = share
        self._ends = list(accumulate(stage.steps for stage in self._stages))
        for stage, dataset in zip(self._stages, datasets, strict=True):
            share.of(stage.batch_size)
            if len(dataset) == 0:
                raise DatasetError(f"the data set {stage.data or 'of data.train'} holds no frames; nothing to train on")
        self._orders = [
            frame_order(dataset, stage.batch_size, data or DataConfig(), config.seed, number)
            for number, (stage, dataset) in enumerate(zip(self._stages, datasets, strict=True))
        ]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        index = bisect.bisect_right(self._ends, step)
        stage, dataset = self._stages[index], self._datasets[index]
        step_in_stage = step - (self._ends[index - 1] if index else 0)
        rng = np.random.default_rng([self._config.seed, step])
        size = parse_resolution(stage.res[int(rng.integers(len(stage.res)))])
        frames = self._orders[index].frames(step_in_stage, stage.batch_size)
        transforms = [draw_transform(rng, self._config.augment) for _ in frames]
        part = self._share.of(stage.batch_size)
        pairs = [
            transform_sample(dataset[frame], size, transform, self._canonical_focal)
            for frame, transform in zip(frames[part], transforms[part], strict=True)
        ]
        images = jitter_colours(torch.stack([image for image, _ in pairs]), transforms[part])
        return images, torch.from_numpy(np.stack([depth for _, depth in pairs]))


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
