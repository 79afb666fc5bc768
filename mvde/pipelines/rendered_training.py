"""Training on frames that are rendered as they are needed and never stored, in a given time."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvde.config import Config
from mvde.datasets.formats import open_dataset
from mvde.datasets.sample import DepthDataset
from mvde.model import DepthModel
from mvde.pipelines.augment import draw_transform, jitter_colours, transform_sample
from mvde.pipelines.batches import Share, StepBatches
from mvde.pipelines.train_depth import LAST_FILE, DepthTrainingPipeline, TrainResult
from mvde.resolution import parse_resolution

METRICS_FILE, HALF_FILE = "metrics.jsonl", "nano.safetensors"


class RenderedBatches(StepBatches):
    """Batches of :class:`StepBatches` whose frames are taken in order: each is new, and a scene's come together."""

    def __init__(self, config: Config, datasets: list[DepthDataset], share: Share) -> None:
        super().__init__(config.train, datasets, share, config.decoder.canonical_focal)
        self._focal = config.decoder.canonical_focal
        self._all = config.train.all_stages()
        self._sets, self._shared, self._seed = datasets, share, config.train.seed
        self._augment = config.train.augment
        self._last = list(accumulate(stage.steps for stage in self._all))
        self._first = list(accumulate((stage.steps * stage.batch_size for stage in self._all), initial=0))

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        number = bisect_right(self._last, step)
        stage = self._all[number]
        in_stage = step - (self._last[number - 1] if number else 0)
        rng = np.random.default_rng([self._seed, step])
        size = parse_resolution(stage.res[int(rng.integers(len(stage.res)))])
        transforms = [draw_transform(rng, self._augment) for _ in range(stage.batch_size)]
        start = self._first[number] + in_stage * stage.batch_size
        part = self._shared.of(stage.batch_size)
        frames = range(start, start + stage.batch_size)[part]
        pairs = [
            transform_sample(self._sets[number][frame % len(self._sets[number])], size, transform, self._focal)
            for frame, transform in zip(frames, transforms[part], strict=True)
        ]
        images = jitter_colours(torch.stack([image for image, _ in pairs]), transforms[part])
        return images, torch.from_numpy(np.stack([depth for _, depth in pairs]))


class RenderedTraining(DepthTrainingPipeline):
    """Trainer whose data sets are rendered ones, see :func:`mvde.datasets.synth.rendered.open_rendered`.

    Losses and metrics are appended to ``metrics.jsonl`` in the run folder as they come; ``nano.safetensors`` is
    ``last.safetensors`` in fp16. After ``limit_s`` seconds the run ends as after an interruption, with its weights
    saved. With ``train.num_workers``, the start method of multiprocessing must be ``spawn``: an OpenGL context ends
    with a fork.
    """

    def __init__(self, config: Config, limit_s: float | None = None) -> None:
        self._limit_s = limit_s
        super().__init__(config)

    def train(self, output_dir: str | Path) -> TrainResult:
        """Train as :meth:`DepthTrainingPipeline.train` does, for at most ``limit_s`` seconds."""
        self._metrics_path = Path(output_dir) / METRICS_FILE
        self._metrics_path.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        timer = None
        if self._limit_s is not None:
            timer = threading.Timer(self._limit_s, os.kill, (os.getpid(), signal.SIGTERM))
            timer.daemon = True
            timer.start()
        try:
            return super().train(output_dir)
        finally:
            if timer is not None:
                timer.cancel()

    def _prepare(self, output_dir: Path) -> None:
        super()._prepare(output_dir)
        share = Share(self._accelerator.process_index, self._accelerator.num_processes)
        data = self.config.data
        sets = [open_dataset(data.format, stage.data or data.train) for stage in self._stages]
        self._batches = RenderedBatches(self.config, sets, share)

    def _log(self, losses: list[dict[str, Tensor]], done: int, seconds_per_step: float) -> None:
        super()._log(losses, done, seconds_per_step)
        mean = {name: float(torch.stack([step[name] for step in losses]).mean()) for name in losses[0]}
        self._record({"step": done, "seconds_per_step": seconds_per_step, **mean})

    def _validate(self, output_dir: Path) -> dict[str, float]:
        metrics = super()._validate(output_dir)
        self._record({"step": self.progress.step, **{f"val_{name}": value for name, value in metrics.items()}})
        return metrics

    def _save(self, output_dir: Path) -> None:
        super()._save(output_dir)
        if self._accelerator.is_main_process:  # half the size: what is carried away from a lent machine
            DepthModel.load(output_dir / LAST_FILE).save(output_dir / HALF_FILE, torch.float16)

    def _record(self, row: dict[str, Any]) -> None:
        with self._metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seconds": round(time.monotonic() - self._started, 1), **row}) + "\n")


def fitted_to(config: Config, seconds_per_step: list[float], budget_s: float) -> Config:
    """Shorten or lengthen all stages by one factor, so that their steps take ``budget_s`` seconds together.

    ``seconds_per_step`` are measured, one for each stage. The decay of the rate and its warm-up keep their share. Every
    stage keeps at least a step.
    """
    stages = config.train.all_stages()
    total = sum(stage.steps * seconds for stage, seconds in zip(stages, seconds_per_step, strict=True))
    factor = budget_s / total

    def scaled(count: int, least: int) -> int:
        return max(least, round(count * factor))

    shorter = tuple(dataclasses.replace(stage, steps=scaled(stage.steps, 1)) for stage in stages)
    num_steps = sum(stage.steps for stage in shorter)
    train = dataclasses.replace(
        config.train,
        stages=shorter,
        warmup_steps=min(scaled(config.train.warmup_steps, 0), num_steps // 10),
        decay_steps=min(scaled(config.train.decay_steps, 0), num_steps - num_steps // 10),
        validate_every=scaled(config.train.validate_every, 1),
        checkpoint_every=scaled(config.train.checkpoint_every, 1),
    )
    return dataclasses.replace(config, train=train)
