"""Validation divided among the processes of a run, with the figures of one process."""

from __future__ import annotations

from typing import Any

from mvde.datasets.sample import DepthDataset
from mvde.errors import DatasetError
from mvde.metrics import MetricTotals
from mvde.pipelines.batches import Share
from mvde.pipelines.eval_depth import Predictor, default_protocol, evaluate_frames
from mvde.pipelines.processes import gathered, together
from mvde.protocols import EvaluationProtocol

BATCH_SIZE = 16
"""Frames that are predicted at once. Only whole batches go to a process: the same pictures meet in a batch, and the
figures are those of one process bit for bit, on machines that compute alike."""


def frames_of(share: Share, num_frames: int) -> range:
    """Consecutive frames that a process validates on; may be empty."""
    num_batches = -(-num_frames // BATCH_SIZE)
    first, end = (-(-num_batches * rank // share.num_processes) * BATCH_SIZE for rank in (share.rank, share.rank + 1))
    return range(min(first, num_frames), min(end, num_frames))


def validate(
    accelerator: Any, predict: Predictor, dataset: DepthDataset, protocol: EvaluationProtocol, share: Share
) -> MetricTotals:
    """Metrics of all frames, equal in every process; each predicts its own part. An error of one is raised by all."""
    frames = frames_of(share, len(dataset))
    totals = together(accelerator, lambda: evaluate_frames(predict, dataset, protocol, frames, batch_size=BATCH_SIZE))
    whole = MetricTotals()
    for part in gathered(accelerator, next(iter(totals.values()))):
        whole.merge(part)
    return whole


def no_depth_to_validate(path: str, data_format: str, dataset: DepthDataset) -> DatasetError:
    """Error for a validation set without a frame that counts."""
    near, far = default_protocol(dataset).range_m
    return DatasetError(
        f"{path} (data.val, format {data_format}) holds no frame with depth of {near:g} to {far:g} m to validate on; "
        "check data.depth_scale"
    )
