"""Accuracy of benchmarked engines on a data set, and their depth of a few sample images.

It combines `mvde.bench`, which is independent of data sets, with `mvde.pipelines`, which is independent of benchmarks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvde.alignment import SMALLEST_DEPTH_M, Alignment, default_alignment, fit_inverse
from mvde.bench.measure import Assessment
from mvde.bench.pictures import Picture
from mvde.errors import DatasetError
from mvde.protocols import EvaluationProtocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.artifact import EngineArtifact
    from mvde.bench.on_time import OnTimeRun
    from mvde.datasets.sample import DepthDataset
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.frame_camera import CameraOf
    from mvde.runtime.result import DepthResult

_NUM_PICTURES = 3
_NUM_LOOKED_AT = 16


@dataclass(frozen=True)
class Assessor:
    """Assesses timed engines on ``dataset``, if any, and on ``pictures``.

    ``protocol`` is the evaluation protocol; by default all frames, within the depth range of the data set. ``camera``
    is the user's for every frame; by default each has its own, if it is known.
    """

    dataset: DepthDataset | None
    max_frames: int
    pictures: tuple[Picture, ...]
    protocol: EvaluationProtocol | None = None
    camera: CameraOf | None = None

    def assess(self, runtime: DepthRuntime) -> Assessment:
        """Evaluate an engine: metrics over the data set with the number of images, and the depth of each picture.

        Depth without metres is aligned to the ground truth as its kind needs, metric depth is not.
        """
        depths = tuple(
            _shown(runtime.infer(picture.image, camera=self.camera or picture.camera), picture)
            for picture in self.pictures
        )
        return Assessment(None if self.dataset is None else self._accuracy(self.dataset, runtime), depths)

    def assess_on_time(
        self, runs: Sequence[OnTimeRun], artifacts: Sequence[EngineArtifact], fps: float
    ) -> list[OnTimeRun]:
        """Runs with a deadline with the accuracy of what they delivered in time, where the data set is of clips."""
        from mvde.bench.on_time import delivered
        from mvde.datasets.clips import ClipDataset
        from mvde.pipelines.eval_depth import default_protocol
        from mvde.pipelines.eval_on_time import delivered_accuracy
        from mvde.runtime.depth import DepthRuntime

        dataset, is_metric = self.dataset, all(one.manifest.depth_kind.unit == "m" for one in artifacts)
        if not isinstance(dataset, ClipDataset) or not is_metric:
            return list(runs)
        with ExitStack() as stack:
            engines = {one.manifest.resolution: stack.enter_context(DepthRuntime.load(one.path)) for one in artifacts}
            found = delivered_accuracy(
                [delivered(run, fps) for run in runs],
                engines,
                dataset,
                self.protocol or default_protocol(dataset),
                fps=fps,
                max_frames=self.max_frames,
                camera=self.camera,
            )
        return [
            dataclasses.replace(run, accuracy={**(run.accuracy or {}), **one})
            for run, one in zip(runs, found, strict=True)
        ]

    def camera_words(self) -> str:
        """Where the cameras of the data set's frames come from; it matters to kinds with a canonical camera."""
        if self.camera is not None:
            return "camera given"
        is_known = self.dataset is not None and len(self.dataset) > 0 and self.dataset[0].camera is not None
        return "camera known" if is_known else "camera assumed"

    def _accuracy(self, dataset: DepthDataset, runtime: DepthRuntime) -> dict[str, float]:
        from mvde.pipelines.eval_depth import cameras_of, default_protocol, evaluate, runtime_predictor

        manifest = runtime.manifest
        protocol = self.protocol or default_protocol(dataset)
        alignment = default_alignment(manifest.depth_kind)
        totals = evaluate(
            runtime_predictor(runtime),
            dataset,
            protocol,
            [alignment],
            max_frames=self.max_frames,
            kind=manifest.depth_kind,
            frame_camera=cameras_of(self.camera),
        )[alignment]
        shares = {"num_images": len(totals.per_image), "ground_truth_counted": totals.share_counted}
        return {**totals.overall(protocol.averaging), **shares, **self._steadiness(dataset, runtime)}

    def _steadiness(self, dataset: DepthDataset, runtime: DepthRuntime) -> dict[str, float]:
        """Flicker over clips; no entry for other data sets, and for depth without metres."""
        from mvde.datasets.clips import ClipDataset
        from mvde.pipelines.eval_clips import clip_steadiness

        if not isinstance(dataset, ClipDataset) or runtime.manifest.depth_kind.unit != "m":
            return {}
        return clip_steadiness(runtime, dataset, self.max_frames)


def _shown(result: DepthResult, picture: Picture) -> NDArray[np.float32]:
    """Depth to show: aligned to the truth, in metres, where the kind needs it and the truth is known."""
    truth_m, kind = picture.truth_m, result.depth_kind
    alignment = default_alignment(kind)
    valid = None if truth_m is None else np.isfinite(truth_m) & (truth_m > 0)
    if truth_m is None or valid is None or alignment is Alignment.NONE or not valid.any():
        return result.as_depth() if kind.is_inverse else result.depth
    depth, target = result.depth.astype(np.float64), truth_m[valid].astype(np.float64)
    if not kind.is_inverse:
        median = max(float(np.median(depth[valid])), SMALLEST_DEPTH_M)
        aligned: NDArray[np.float64] = depth * (np.median(target) / median)
    else:
        scale, shift = fit_inverse(depth[valid], target)
        aligned = 1 / np.maximum(scale * depth + shift, 1 / target.max())
    return aligned.astype(np.float32)


def open_assessor(
    dataset: DepthDataset | None,
    where: Path | None,
    max_frames: int,
    photographs: Sequence[NDArray[np.uint8]],
    *,
    with_pictures: bool,
    protocol: EvaluationProtocol | None = None,
    camera: CameraOf | None = None,
) -> Assessor:
    """Create an assessor; its pictures come from the data set (read from ``where``) if given, else ``photographs``.

    Raises :class:`DatasetError` if the data set has no frames or no ground truth, before anything is measured.
    """
    if dataset is None:
        chosen = [Picture(image) for image in photographs[:_NUM_PICTURES]] if with_pictures else []
        return Assessor(None, max_frames, tuple(chosen), camera=camera)
    protocol = protocol or EvaluationProtocol(dataset.depth_range_m)
    _check_ground_truth(dataset, where, protocol)
    return Assessor(dataset, max_frames, _pictures_of(dataset) if with_pictures else (), protocol, camera)


def _check_ground_truth(dataset: DepthDataset, where: Path | None, protocol: EvaluationProtocol) -> None:
    """Raise DatasetError unless a sample of frames has depth, to fail before minutes of measuring."""
    indices = _spread(len(dataset), _NUM_LOOKED_AT)
    if not any(protocol.counted(dataset[index].depth_m).any() for index in indices):
        raise DatasetError(
            f"{where} has no ground truth: none of the {len(indices)} frames checked has valid depth "
            f"({protocol.describe()}); leave --data out to measure speed only"
        )


def _pictures_of(dataset: DepthDataset) -> tuple[Picture, ...]:
    samples = [dataset[index] for index in _spread(len(dataset), _NUM_PICTURES)]
    return tuple(Picture(sample.rgb, sample.depth_m, sample.camera) for sample in samples)


def _spread(count: int, taken: int) -> list[int]:
    """At most ``taken`` indices, evenly spaced over ``count``."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, taken))})
