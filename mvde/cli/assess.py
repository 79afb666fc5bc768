"""What engines are like besides fast: their accuracy on a data set, and their depth of a few pictures.

Here, because `mvde.bench` knows no data sets and `mvde.pipelines` no benchmark: the verb puts the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mvde.bench.measure import Assessment
from mvde.bench.pictures import Picture
from mvde.camera import camera_factor
from mvde.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.datasets.base import DepthDataset
    from mvde.runtime.depth import DepthRuntime

_NUM_PICTURES = 3
_NUM_LOOKED_AT = 16


@dataclass(frozen=True)
class Assessor:
    """Assesses engines that were timed: over ``dataset``, where there is one, and on ``pictures``."""

    dataset: DepthDataset | None
    max_frames: int
    pictures: tuple[Picture, ...]

    def assess(self, runtime: DepthRuntime) -> Assessment:
        """Metrics by name over the data set (depth as it is for metric models, scaled to the median for relative ones)
        with the number of images, and the depth of each picture."""
        canonical = runtime.manifest.canonical_focal
        depths = tuple(
            runtime.infer(picture.image).depth * np.float32(camera_factor(picture.focal, canonical))
            for picture in self.pictures
        )
        return Assessment(None if self.dataset is None else self._accuracy(self.dataset, runtime), depths)

    def _accuracy(self, dataset: DepthDataset, runtime: DepthRuntime) -> dict[str, float]:
        from mvde.pipelines.eval_depth import evaluate, runtime_predictor

        manifest = runtime.manifest
        alignment = "none" if manifest.depth_kind == "metric" else "median"
        totals = evaluate(
            runtime_predictor(runtime),
            dataset,
            manifest.depth_range_m,
            [alignment],
            max_frames=self.max_frames,
            canonical_focal=manifest.canonical_focal,
        )[alignment]
        return {**totals.overall(), "num_images": len(totals.per_image)}


def open_assessor(
    dataset: DepthDataset | None,
    where: Path | None,
    max_frames: int,
    photographs: Sequence[NDArray[np.uint8]],
    *,
    with_pictures: bool,
) -> Assessor:
    """Assessor over the data set that lies at ``where``, or without one; its pictures come from there, or else from the
    photographs.

    Raises :class:`DatasetError` for a data set without frames or without ground truth, before anything is measured.
    """
    if dataset is None:
        chosen = [Picture(image) for image in photographs[:_NUM_PICTURES]] if with_pictures else []
        return Assessor(None, max_frames, tuple(chosen))
    _check_ground_truth(dataset, where)
    return Assessor(dataset, max_frames, _pictures_of(dataset) if with_pictures else ())


def _check_ground_truth(dataset: DepthDataset, where: Path | None) -> None:
    """Raise DatasetError unless some frame of a few has depth; otherwise that would be found out after minutes."""
    indices = _spread(len(dataset), _NUM_LOOKED_AT)
    if not any(_has_depth(dataset[index].depth_m) for index in indices):
        raise DatasetError(
            f"{where} has no ground truth: none of the {len(indices)} frames looked at has a pixel of depth > 0; "
            "leave --data out to measure speed alone"
        )


def _has_depth(depth_m: NDArray[np.float32]) -> bool:
    return bool((np.isfinite(depth_m) & (depth_m > 0)).any())


def _pictures_of(dataset: DepthDataset) -> tuple[Picture, ...]:
    samples = [dataset[index] for index in _spread(len(dataset), _NUM_PICTURES)]
    return tuple(Picture(sample.rgb, sample.depth_m, sample.focal) for sample in samples)


def _spread(count: int, taken: int) -> list[int]:
    """At most ``taken`` indices, evenly spread over ``count``."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, taken))})
