"""Evaluation of checkpoints and engines over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.alignment import Alignment, check_alignment
from mvde.camera import camera_factor
from mvde.datasets.sample import DepthDataset, DepthSample
from mvde.errors import DatasetError, MissingDependencyError, UsageError
from mvde.metrics import MetricTotals, depth_errors
from mvde.protocols import EvaluationProtocol
from mvde.resolution import check_resolution

if TYPE_CHECKING:
    from mvde.model import DepthModel
    from mvde.pipelines.token_head import TokenSupervised
    from mvde.runtime.depth import DepthRuntime

Predictor = Callable[[list[NDArray[np.uint8]]], list[NDArray[np.float32]]]


@dataclass(frozen=True)
class DepthSource:
    """Depth predictor under evaluation, with the meaning of its depth.

    ``depth_range_m`` is the representable range (nearest, farthest) in metres, ``resolution`` (H, W), and
    ``canonical_focal`` the relative focal length of the camera that the depth refers to, if any (see
    :mod:`mvde.camera`).
    """

    predict: Predictor
    depth_range_m: tuple[float, float]
    resolution: tuple[int, int]
    canonical_focal: float | None


def torch_predictor(model: DepthModel | TokenSupervised, resolution: tuple[int, int]) -> Predictor:
    """Function from images (H, W, 3) uint8 to depths (H, W) float32 in metres, using ``model`` at ``resolution``.

    Images are stretched to the resolution with antialiasing; depth is resized back bilinearly.
    """
    import torch
    import torch.nn.functional as F

    device = next(model.parameters()).device

    def predict(images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        resized = []
        for image in images:
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            same = image.shape[:2] == resolution
            resized.append(x if same else F.interpolate(x, size=resolution, mode="bilinear", antialias=True))
        depth = model.predict_depth(torch.cat(resized).to(device)).float().cpu()
        return [_resized(d.numpy(), image.shape[:2]) for d, image in zip(depth, images, strict=True)]

    def _resized(depth: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
        if depth.shape == size:
            return depth
        x = torch.from_numpy(depth)[None, None]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()

    return predict


def runtime_predictor(runtime: DepthRuntime) -> Predictor:
    """Function from images (H, W, 3) uint8 to depths (H, W) float32 in metres, using a loaded engine and stretching."""

    def predict(images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        return [runtime.infer(image).depth for image in images]

    return predict


def evaluate(
    predict: Predictor,
    dataset: DepthDataset,
    protocol: EvaluationProtocol,
    alignments: Iterable[Alignment | str] = (Alignment.NONE,),
    batch_size: int = 16,
    max_frames: int = 0,
    canonical_focal: float | None = None,
) -> dict[Alignment, MetricTotals]:
    """Metrics by alignment over the pixels of the data set that ``protocol`` counts.

    The range is the data set's, never the model's: depth that the model cannot represent counts as its error.
    Predictions for the camera of ``canonical_focal`` are converted to each frame's camera with its intrinsics; frames
    without intrinsics are left unchanged.

    ``max_frames`` > 0 selects that many evenly spaced frames. Frames without a valid pixel are skipped. Raises
    DatasetError for an empty data set.
    """
    count = len(dataset)
    if count == 0:
        raise DatasetError("the data set holds no frames; there is nothing to evaluate")
    taken = count if max_frames <= 0 else min(count, max_frames)
    indices = np.linspace(0, count - 1, taken).astype(int)
    totals = {check_alignment(alignment): MetricTotals() for alignment in alignments}
    for first in range(0, taken, batch_size):
        samples = [dataset[int(index)] for index in indices[first : first + batch_size]]
        depths = predict([sample.rgb for sample in samples])
        for sample, pred_m in zip(samples, depths, strict=True):
            factor = np.float32(camera_factor(sample.focal, canonical_focal))
            _accumulate(totals, sample, pred_m * factor, protocol)
    return totals


def default_protocol(dataset: DepthDataset) -> EvaluationProtocol:
    """Protocol of all frames and pixels in the range of the data set's sensor or renderer, averaged over images."""
    return EvaluationProtocol(dataset.depth_range_m)


def _accumulate(
    totals: dict[Alignment, MetricTotals],
    sample: DepthSample,
    pred_m: NDArray[np.float32],
    protocol: EvaluationProtocol,
) -> None:
    target = sample.depth_m
    valid = protocol.counted(target)
    num_known, num_counted = int((np.isfinite(target) & (target > 0)).sum()), int(valid.sum())
    for alignment, total in totals.items():
        total.count(num_known, num_counted)
        if num_counted:
            errors = depth_errors(pred_m, target, valid, alignment=alignment, range_m=protocol.range_m)
            total.add(sample.name, errors)
            total.num_with_camera += sample.intrinsics is not None


def open_source(target: str | Path, resolution: tuple[int, int] | None = None) -> DepthSource:
    """Open a checkpoint (``.safetensors``) or an engine (a path or an id) for evaluation.

    A checkpoint runs at ``resolution`` (H, W), by default its native one; an engine only at its own. Raises
    CheckpointError, ArtifactError or UsageError if it cannot be used.
    """
    if str(target).endswith(".safetensors"):
        return _checkpoint_source(Path(target), resolution)
    return _engine_source(target, resolution)


def _checkpoint_source(path: Path, resolution: tuple[int, int] | None) -> DepthSource:
    try:
        import torch

        from mvde.model import DepthModel
    except ImportError as error:
        raise MissingDependencyError.for_extra("torch", "model", "evaluating a checkpoint") from error
    model = DepthModel.load(path)
    size = resolution or model.config.vit.image_size
    check_resolution(size, model.patch_size)
    decoder = model.config.decoder
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    depth_range_m = (decoder.min_depth, decoder.max_depth)
    return DepthSource(torch_predictor(model, size), depth_range_m, size, decoder.canonical_focal)


def _engine_source(target: str | Path, resolution: tuple[int, int] | None) -> DepthSource:
    from mvde.runtime.depth import DepthRuntime

    runtime = DepthRuntime.load(target, resolution=resolution)
    own = runtime.manifest.resolution
    if resolution is not None and resolution != own:
        raise UsageError(
            f"the engine runs at {own[0]}x{own[1]}, not at {resolution[0]}x{resolution[1]}; "
            "leave the resolution out, or build an engine of that resolution"
        )
    manifest = runtime.manifest
    return DepthSource(runtime_predictor(runtime), manifest.valid_range, own, manifest.canonical_focal)
