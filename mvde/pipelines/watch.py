"""Checks that stop a failing training: non-finite losses, gradients or weights, and data without depth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvde.camera import Camera
from mvde.config import Config
from mvde.errors import DatasetError, TrainingError
from mvde.pipelines.eval_depth import Predictor

MOST_STEPS_WITHOUT_DEPTH = 50
"""Consecutive steps without a valid pixel after which the data is considered wrong."""


class TrainingWatch:
    """Checks of one run's steps; ``accelerator`` sums over processes, so that all of them stop together."""

    def __init__(self, config: Config, accelerator: Any, output_dir: Path) -> None:
        self._config = config
        self._accelerator = accelerator
        self._output_dir = output_dir
        self._saved_step: int | None = None
        self._num_steps = 0
        self._num_blank = 0

    def saved(self, step: int) -> None:
        """Record that the state after ``step`` updates is on disk."""
        self._saved_step = step

    def check_step(
        self, step: int, loss: Tensor, gradient_norm: Tensor, valid: Tensor, depth_m: Tensor, data: str
    ) -> None:
        """Raise an error unless update ``step`` (from 0) is safe to apply.

        :class:`TrainingError` if the loss or the gradient norm is not finite, :class:`DatasetError` naming ``data`` if
        ``valid`` (B, H, W), the mask of pixels of ``depth_m`` that count, was empty in too many consecutive steps.
        """
        values = torch.stack([loss.detach().float(), gradient_norm.detach().float(), valid.sum().float()])
        loss_value, norm, num_valid = self._accelerator.reduce(values, reduction="sum").tolist()
        if not (math.isfinite(loss_value) and math.isfinite(norm)):
            raise self._diverged(step + 1, f"the loss is {loss_value:g} and the gradient's norm {norm:g}")
        self._num_steps += 1
        self._num_blank = 0 if num_valid > 0 else self._num_blank + 1
        if self._num_blank >= MOST_STEPS_WITHOUT_DEPTH:
            raise self._blank(depth_m, data)

    def check_before_saving(
        self, step: int, loss: Tensor, weights: Iterable[Tensor], depth_m: Tensor, data: str
    ) -> None:
        """Raise an error unless the weights after ``step`` updates may replace the saved ones.

        ``loss`` is theirs on the last batch: the last update can ruin weights that no later step would check.
        """
        bad = torch.stack([~torch.isfinite(weight.detach()).all() for weight in weights]).any()
        values = torch.stack([loss.detach().float(), bad.to(loss.device).float()])
        loss_value, num_bad = self._accelerator.reduce(values, reduction="sum").tolist()
        if num_bad > 0 or not math.isfinite(loss_value):
            what = "some weights are not finite numbers" if num_bad > 0 else f"the loss is {loss_value:g}"
            raise self._diverged(step, f"after its update {what}")
        if self._num_blank and self._num_blank == self._num_steps:
            raise self._blank(depth_m, data)

    def finite(self, predict: Predictor, step: int) -> Predictor:
        """Wrap ``predict`` to raise :class:`TrainingError` if the depth of a picture is not finite."""

        def checked(images: list[NDArray[np.uint8]], cameras: list[Camera | None]) -> list[NDArray[np.float32]]:
            depths = predict(images, cameras)
            if not all(np.isfinite(depth).all() for depth in depths):
                raise self._diverged(step, "the depth predicted with the averaged weights is not finite")
            return depths

        return checked

    def _diverged(self, step: int, what: str) -> TrainingError:
        state = "no state was saved" if self._saved_step is None else f"the state after step {self._saved_step} is kept"
        return TrainingError(
            f"training diverged at step {step}, the values are not finite: {what}; {self._output_dir}: {state}; "
            f"lower train.lr ({self._config.train.lr:g}) and run the same command"
        )

    def _blank(self, depth_m: Tensor, data: str) -> DatasetError:
        decoder = self._config.decoder
        known = depth_m[torch.isfinite(depth_m) & (depth_m > 0)]
        held = f"depth of {float(known.min()):g} to {float(known.max()):g} m" if known.numel() else "no depth at all"
        return DatasetError(
            f"{self._num_blank} step{'s' * (self._num_blank != 1)} in a row had no pixel with depth of "
            f"{decoder.min_depth:g} to {decoder.max_depth:g} m, so there is nothing to learn from: the last frames of "
            f"{data} (format {self._config.data.format}) hold {held}; check data.depth_scale "
            f"({self._config.data.depth_scale or 'by default'}), decoder.min_depth and decoder.max_depth"
        )
