"""Evaluation of checkpoints and engines over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.alignment import Alignment, check_alignment
from mvde.camera import Camera
from mvde.contract import DepthKind, FocalConvention
from mvde.datasets.sample import DepthDataset, DepthSample
from mvde.errors import DatasetError, MissingDependencyError, UsageError
from mvde.metrics import MetricTotals, depth_errors
from mvde.protocols import EvaluationProtocol
from mvde.resampling import Resampling
from mvde.resolution import check_resolution
from mvde.runtime.frame_camera import CameraOf, DepthContract, camera_factor, camera_of, map_scale
from mvde.runtime.placement import depth_to_source, fit_image, place

if TYPE_CHECKING:
    from mvde.description import ModelDescription
    from mvde.image_model import ImageDepthModel
    from mvde.pipelines.token_head import TokenSupervised
    from mvde.runtime.depth import DepthRuntime

Predictor = Callable[[list[NDArray[np.uint8]], list[Camera | None]], list[NDArray[np.float32]]]
"""From images (H, W, 3) uint8 and their cameras, where known, to maps (H, W) float32 of those cameras."""

FrameCamera = Callable[[DepthSample], Camera | None]
"""The camera to take a frame's depth for; ``None`` assumes the model's."""


@dataclass(frozen=True)
class DepthSource:
    """Depth predictor under evaluation, with the meaning of its maps.

    ``valid_range`` is the representable range (min, max) in the unit of the map, ``resolution`` (H, W),
    ``calibrated`` what calibrated metres come from, ``runtime`` that of an engine.
    """

    predict: Predictor
    contract: DepthContract
    valid_range: tuple[float, float]
    resolution: tuple[int, int]
    calibrated: str | None = None
    runtime: DepthRuntime | None = None


@dataclass(frozen=True)
class _CalibratedContract:
    """Meaning of calibrated maps: metres, whatever the camera, which the calibration contains."""

    depth_kind: DepthKind = DepthKind.METRIC
    canonical_focal: float | None = None
    focal_convention: FocalConvention | None = None


def torch_predictor(
    model: ImageDepthModel | TokenSupervised, resolution: tuple[int, int], description: ModelDescription
) -> Predictor:
    """Predictor of ``model`` at ``resolution`` (H, W), for the cameras of the frames.

    Frames are fitted and resampled, and maps resized back bilinearly, as the runtime does with the model's engine.
    """
    import torch

    device = next(model.parameters()).device
    resampling, fit = Resampling.of(description.preprocess), description.preprocess.fit

    def predict(images: list[NDArray[np.uint8]], cameras: list[Camera | None]) -> list[NDArray[np.float32]]:
        placements = [place((image.shape[0], image.shape[1]), resolution, fit, resampling) for image in images]
        batch = np.stack([fit_image(image, where) for image, where in zip(images, placements, strict=True)])
        maps = model.predict_depth(torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)).float().cpu().numpy()
        found = []
        for one, camera, where in zip(maps, cameras, placements, strict=True):
            factor = camera_factor(description, camera, where)
            found.append(depth_to_source(one, where) * np.float32(map_scale(description.depth_kind, factor)))
        return found

    return predict


def runtime_predictor(runtime: DepthRuntime) -> Predictor:
    """Predictor of a loaded engine, with the manifest's own fit."""

    def predict(images: list[NDArray[np.uint8]], cameras: list[Camera | None]) -> list[NDArray[np.float32]]:
        both = zip(images, cameras, strict=True)
        return [runtime.infer(image, camera=camera).depth for image, camera in both]

    return predict


def own_camera(sample: DepthSample) -> Camera | None:
    """Camera of a frame by its intrinsics."""
    return sample.camera


def cameras_of(given: CameraOf | None, *, assumed: bool = False) -> FrameCamera:
    """The camera of a user for every frame, the model's where it is ``assumed``, else each frame's own."""
    if assumed:
        return lambda sample: None
    if given is None:
        return own_camera
    return lambda sample: camera_of(given, (sample.rgb.shape[0], sample.rgb.shape[1]))


def evaluate(
    predict: Predictor,
    dataset: DepthDataset,
    protocol: EvaluationProtocol,
    alignments: Iterable[Alignment | str] = (Alignment.NONE,),
    batch_size: int = 16,
    max_frames: int = 0,
    kind: DepthKind = DepthKind.METRIC,
    frame_camera: FrameCamera = own_camera,
) -> dict[Alignment, MetricTotals]:
    """Metrics by alignment over the pixels of the data set that ``protocol`` counts.

    The range is the data set's, never the model's: depth that the model cannot represent counts as its error.
    Predictions, maps of ``kind``, are for each frame's camera, ``frame_camera``: by default from its intrinsics.

    ``max_frames`` > 0 selects that many evenly spaced frames. Frames without a valid pixel are skipped. Raises
    DatasetError for an empty data set.
    """
    frames = spread(dataset, max_frames)
    return evaluate_frames(predict, dataset, protocol, frames, alignments, batch_size, kind, frame_camera)


def spread(dataset: DepthDataset, max_frames: int) -> list[int]:
    """Indices of ``max_frames`` evenly spaced frames, of all for 0. Raises DatasetError for an empty data set."""
    count = len(dataset)
    if count == 0:
        raise DatasetError("the data set holds no frames; there is nothing to evaluate")
    taken = count if max_frames <= 0 else min(count, max_frames)
    found: list[int] = np.linspace(0, count - 1, taken).astype(int).tolist()
    return found


def evaluate_frames(
    predict: Predictor,
    dataset: DepthDataset,
    protocol: EvaluationProtocol,
    frames: Sequence[int],
    alignments: Iterable[Alignment | str] = (Alignment.NONE,),
    batch_size: int = 16,
    kind: DepthKind = DepthKind.METRIC,
    frame_camera: FrameCamera = own_camera,
) -> dict[Alignment, MetricTotals]:
    """Metrics by alignment as :func:`evaluate` gives, over the ``frames`` of these indices; there may be none."""
    totals = {check_alignment(alignment): MetricTotals() for alignment in alignments}
    for first in range(0, len(frames), batch_size):
        samples = [dataset[index] for index in frames[first : first + batch_size]]
        cameras = [frame_camera(sample) for sample in samples]
        maps = predict([sample.rgb for sample in samples], cameras)
        for sample, camera, pred in zip(samples, cameras, maps, strict=True):
            counted = accumulate(totals, sample, pred, protocol, kind)
            for total in totals.values():
                total.num_with_camera += counted and camera is not None
    return totals


def default_protocol(dataset: DepthDataset) -> EvaluationProtocol:
    """Protocol of all frames and pixels in the range of the data set's sensor or renderer, averaged over images."""
    return EvaluationProtocol(dataset.depth_range_m)


def accumulate(
    totals: dict[Alignment, MetricTotals],
    sample: DepthSample,
    pred: NDArray[np.float32],
    protocol: EvaluationProtocol,
    kind: DepthKind,
) -> bool:
    """Add a frame's errors; return whether it has a pixel that counts.

    Sky (+inf) is at the far end of the range; pixels without a prediction (NaN) do not count, unless all are without.
    """
    target = sample.depth_m
    pred = np.where(np.isposinf(pred), np.float32(protocol.range_m[1]), pred)
    valid = protocol.counted(target)
    if pred.shape == target.shape and (predicted := valid & ~np.isnan(pred)).any():
        valid = predicted
    num_known, num_counted = int((np.isfinite(target) & (target > 0)).sum()), int(valid.sum())
    for alignment, total in totals.items():
        total.count(num_known, num_counted)
        if num_counted:
            errors = depth_errors(pred, target, valid, alignment=alignment, range_m=protocol.range_m, kind=kind)
            total.add(sample.name, errors)
    return num_counted > 0


def open_source(
    target: str | Path, resolution: tuple[int, int] | None = None, calibration: Path | None = None
) -> DepthSource:
    """Open a checkpoint (``.safetensors``) or an engine (a path or an id) for evaluation.

    A checkpoint runs at ``resolution`` (H, W), by default its native one; an engine only at its own. ``calibration`` is
    a file for an engine, whose maps are metric then. Raises CheckpointError, ArtifactError or UsageError if it cannot
    be used.
    """
    if str(target).endswith(".safetensors"):
        if calibration is not None:
            raise UsageError(f"a calibration is of an engine, but {target} is a checkpoint; leave one of them out")
        return _checkpoint_source(Path(target), resolution)
    return _engine_source(target, resolution, calibration)


def _checkpoint_source(path: Path, resolution: tuple[int, int] | None) -> DepthSource:
    try:
        import torch

        from mvde.model import DepthModel
    except ImportError as error:
        raise MissingDependencyError.for_extra("torch", "model", "evaluating a checkpoint") from error
    model = DepthModel.load(path)
    size = resolution or model.config.vit.image_size
    check_resolution(size, model.patch_size)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    description = model.describe()
    return DepthSource(torch_predictor(model, size, description), description, description.valid_range, size)


def _engine_source(target: str | Path, resolution: tuple[int, int] | None, calibration: Path | None) -> DepthSource:
    from mvde.runtime.depth import DepthRuntime

    runtime = DepthRuntime.load(target, resolution=resolution, calibration=calibration)
    own = runtime.manifest.resolution
    if resolution is not None and resolution != own:
        raise UsageError(
            f"the engine runs at {own[0]}x{own[1]}, not at {resolution[0]}x{resolution[1]}; "
            "leave the resolution out, or build an engine of that resolution"
        )
    manifest, used = runtime.manifest, runtime.calibration
    if used is None or used.scale is None:
        return DepthSource(runtime_predictor(runtime), manifest, manifest.valid_range, own, runtime=runtime)
    range_m = used.range_m(manifest.valid_range)
    return DepthSource(runtime_predictor(runtime), _CalibratedContract(), range_m, own, used.describes, runtime)
