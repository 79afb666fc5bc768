"""Evaluation of an engine whose depth takes its scale from the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.alignment import Alignment, check_alignment
from mvde.contract import DepthKind
from mvde.datasets.sample import DepthDataset, DepthSample
from mvde.errors import UsageError
from mvde.metrics import MetricTotals
from mvde.pipelines.eval_depth import FrameCamera, accumulate, own_camera, spread
from mvde.protocols import EvaluationProtocol
from mvde.runtime.floor import FloorScale, FloorStatus
from mvde.runtime.mounting import Mounting

if TYPE_CHECKING:
    from mvde.runtime.depth import DepthRuntime

FrameMounting = Callable[[DepthSample], Mounting | None]
"""How the camera of a frame is mounted over the floor; ``None`` where it is not known."""


@dataclass(frozen=True)
class FloorTotals:
    """Metrics by alignment of depth with the floor's scale, and what the floor gave each image, by name."""

    totals: dict[Alignment, MetricTotals]
    floors: dict[str, FloorScale]

    def where_used(self, without: Mapping[Alignment, MetricTotals]) -> dict[Alignment, tuple[float, float]]:
        """Mean AbsRel over the images that the floor gave a scale: ``without`` it, and with it; empty without any."""
        names = [name for name, floor in self.floors.items() if floor.status is FloorStatus.USED]
        names = [name for name in names if all(name in total.per_image for total in self.totals.values())]
        return {
            alignment: (_abs_rel(without[alignment], names), _abs_rel(total, names))
            for alignment, total in self.totals.items()
            if names
        }


def _abs_rel(total: MetricTotals, names: Iterable[str]) -> float:
    return float(np.mean([total.per_image[name]["abs_rel"] for name in names]))


def mountings_of(dataset: DepthDataset, given: Mounting | None) -> FrameMounting:
    """Mounting of every frame: the one ``given``, or each frame's own by its pose.

    Raises :class:`UsageError` for frames without poses.
    """
    if given is not None:
        return lambda sample: given
    if len(dataset) and dataset[0].pose is None:
        raise UsageError(
            "the frames of this data set do not say how their camera is mounted (those of --format clips do); give "
            "--mounting FILE, or --camera-height and --pitch, in place of --floor"
        )
    return lambda sample: None if sample.pose is None else Mounting.of_pose(sample.pose)


def evaluate_floor(
    runtime: DepthRuntime,
    dataset: DepthDataset,
    protocol: EvaluationProtocol,
    mounting_of: FrameMounting,
    alignments: Iterable[Alignment | str] = (Alignment.NONE,),
    max_frames: int = 0,
    kind: DepthKind = DepthKind.METRIC,
    frame_camera: FrameCamera = own_camera,
) -> FloorTotals:
    """Metrics as :func:`mvde.pipelines.eval_depth.evaluate` has them, of frames each scaled by the floor it shows.

    Raises :class:`UsageError` for depth without metres, and for frames without a camera where none is assumed.
    """
    found = FloorTotals({check_alignment(one): MetricTotals() for one in alignments}, {})
    for index in spread(dataset, max_frames):
        sample = dataset[index]
        mounting = mounting_of(sample)
        result = runtime.infer(sample.rgb, camera=frame_camera(sample), mounting=mounting)
        found.floors[sample.name] = result.floors[0] if result.floors else FloorScale(FloorStatus.UNKNOWN)
        accumulate(found.totals, sample, result.depth, protocol, kind)
    return found
