"""Intervals of an engine's depth from a data set: scores of its patches, and tables that hold in new scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.calibration.conformal import (
    Scores,
    bin_edges,
    bins_of,
    bound_factors,
    folds_of,
    interval_factors,
)
from mvde.calibration.interval_record import HeldOutRecord, IntervalsRecord, IntervalTable, NearestTable
from mvde.camera import Camera
from mvde.datasets.sample import DepthDataset, DepthSample, SceneDataset
from mvde.errors import CalibrationError, DatasetError, UsageError
from mvde.pipelines.patch_truth import patch_truth
from mvde.protocols import EvaluationProtocol
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.result import DepthResult

MIN_SCENES, FEW_SCENES = 32, 64
"""Refused below the first; said below the second. `benchmarks/intervals.py` prints how coverage varies with both."""
NEAREST_COVERAGE = 0.95
STATS = ("mean", "min", "valid")
"""Columns of the runtime whose scores are taken."""
_MIN_VALID = 0.9


@dataclass(frozen=True)
class FrameScores:
    """Scores of one frame's patches: predicted and true mean, predicted minimum and true nearest, each (n,) in metres.

    ``factor`` is f / f_canonical.
    """

    size: tuple[int, int]
    camera: Camera
    factor: float
    mean_m: NDArray[np.float64]
    true_mean_m: NDArray[np.float64]
    min_m: NDArray[np.float64]
    true_nearest_m: NDArray[np.float64]


def frame_scores(
    runtime: DepthRuntime, sample: DepthSample, protocol: EvaluationProtocol, fit: Fit, camera: Camera | None
) -> FrameScores:
    """Scores of a frame by a runtime with the columns :data:`STATS`; ``camera`` is the frame's.

    Raises :class:`CalibrationError` for a frame whose camera is not known, :class:`UsageError` for a map without
    metres.
    """
    if camera is None:
        raise CalibrationError(
            f"the camera of {sample.name} is not known, but errors are others with another field of view, so intervals "
            "need it; give --camera or --fov"
        )
    result = runtime.infer(sample.rgb, fit, camera=camera)
    return result_scores(result, sample.depth_m, protocol, runtime.manifest.stats_patch, camera)


def result_scores(
    result: DepthResult,
    true_m: NDArray[np.float32],
    protocol: EvaluationProtocol,
    patch: int,
    camera: Camera,
) -> FrameScores:
    """Scores of a result with the columns :data:`STATS`, against the depth (H, W) of its frame, in metres."""
    truth = patch_truth(true_m, protocol.counted(true_m), result.placement, patch)
    mean_m, min_m, valid = (result.stats[:, place].astype(np.float64) for place in range(3))
    taken = truth.is_known & (valid >= _MIN_VALID) & (mean_m > 0) & (min_m > 0)
    columns = (one[taken] for one in (mean_m, truth.mean_m, min_m, truth.nearest_m))
    return FrameScores((true_m.shape[0], true_m.shape[1]), camera, result.camera_factor, *columns)


@dataclass(frozen=True)
class DataScores:
    """Scores of a data set's patches, of means and of nearest points, and the frames that they are of."""

    frames: list[FrameScores]
    mean: Scores
    nearest: Scores

    @property
    def num_scenes(self) -> int:
        """Number of scenes with patches."""
        return len(np.unique(self.mean.scene))


def scene_names(dataset: DepthDataset) -> Callable[[int], str]:
    """The scene of each frame. Raises :class:`DatasetError` for a data set that does not know it."""
    if not isinstance(dataset, SceneDataset):
        raise DatasetError(
            f"{type(dataset).__name__} does not say which frames are of one scene, and intervals of single frames "
            "would look better than they are; use the data set that it was made from"
        )
    return dataset.scene


def joined_scores(frames: Iterable[tuple[str, FrameScores]]) -> DataScores:
    """Join the scores of frames, each with the name of its scene; frames without a patch are left out."""
    given = [(scene, one) for scene, one in frames if len(one.mean_m)]
    numbers = {scene: number for number, scene in enumerate(dict.fromkeys(scene for scene, _ in given))}
    found = [one for _, one in given]
    scene = np.repeat([numbers[name] for name, _ in given], [len(one.mean_m) for one in found]).astype(np.int64)

    def joined(columns: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate([np.zeros(0), *columns])

    predicted, lowest = joined(one.mean_m for one in found), joined(one.min_m for one in found)
    true, nearest = joined(one.true_mean_m for one in found), joined(one.true_nearest_m for one in found)
    return DataScores(
        found, Scores(predicted, np.log(true / predicted), scene), Scores(lowest, np.log(nearest / lowest), scene)
    )


def intervals_of(scores: DataScores, coverage: float) -> IntervalsRecord:
    """Tables of all scenes, with the coverage in scenes left out.

    Raises :class:`CalibrationError` for fewer than :data:`MIN_SCENES` scenes with patches, or too few for ``coverage``,
    :class:`UsageError` for one that is no probability.
    """
    if not 0.5 <= coverage < 1:
        raise UsageError(f"coverage is the share of patches inside, 0.5 to below 1, e.g. 0.9, but got {coverage:g}")
    if scores.num_scenes < MIN_SCENES:
        raise CalibrationError(
            f"intervals need at least {MIN_SCENES} scenes, but got {scores.num_scenes}: half of the error is common to "
            "all patches of a frame, so frames of one scene tell little more than one; film more scenes (in a folder, "
            "the name before a frame's number is its scene: SCENE-NUMBER.png)"
        )
    factors = [one.factor for one in scores.frames]
    nearest_edges = bin_edges(scores.nearest)
    return IntervalsRecord(
        coverage=coverage,
        nearest_coverage=NEAREST_COVERAGE,
        mean=mean_table(scores.mean, bin_edges(scores.mean), coverage),
        nearest=nearest_table(scores.nearest, nearest_edges),
        camera_factor=(min(factors), max(factors)),
        held_out=_held_out(scores, coverage),
    )


def mean_table(scores: Scores, edges: tuple[float, ...], coverage: float) -> IntervalTable:
    """Factors of the predicted mean; each end is missed by about half of what coverage leaves."""
    return IntervalTable(edges, *interval_factors(scores, edges, coverage))


def nearest_table(scores: Scores, edges: tuple[float, ...]) -> NearestTable:
    """Factors of the predicted minimum, below which the nearest point is in one of twenty patches."""
    return NearestTable(edges, bound_factors(scores, edges, NEAREST_COVERAGE))


def inside(table: IntervalTable, scores: Scores) -> NDArray[np.bool_]:
    """Whether each score's truth (n,) is in its interval."""
    bins = bins_of(table.edges_m, scores.predicted_m)
    low, high = np.log(table.lo)[bins], np.log(table.hi)[bins]
    found: NDArray[np.bool_] = (scores.log_ratio >= low) & (scores.log_ratio <= high)
    return found


def beyond(table: NearestTable, scores: Scores) -> NDArray[np.bool_]:
    """Whether each score's nearest point (n,) is at or beyond its bound."""
    bins = bins_of(table.edges_m, scores.predicted_m)
    found: NDArray[np.bool_] = scores.log_ratio >= np.log(table.factors)[bins]
    return found


def width_m(table: IntervalTable, scores: Scores) -> float:
    """Mean width of the intervals in metres."""
    bins = bins_of(table.edges_m, scores.predicted_m)
    widths = np.asarray(table.hi) - np.asarray(table.lo)
    return float(np.mean(scores.predicted_m * widths[bins]))


def coverage_by_scene(covered: NDArray[np.bool_], scene: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of covered patches of each scene (s,)."""
    _, rank, counts = np.unique(scene, return_inverse=True, return_counts=True)
    shares: NDArray[np.float64] = np.bincount(rank, covered.astype(np.float64)) / counts
    return shares


def _held_out(scores: DataScores, coverage: float) -> HeldOutRecord:
    """Coverage of tables whose factors are those of the other four fifths of the scenes."""
    mean, nearest = scores.mean, scores.nearest
    edges, nearest_edges = bin_edges(mean), bin_edges(nearest)
    folds = folds_of(mean)
    covered, is_beyond, widths = np.zeros(len(folds), bool), np.zeros(len(folds), bool), []
    for fold in np.unique(folds):
        held = folds == fold
        table = mean_table(mean.where(~held), edges, coverage)
        covered[held] = inside(table, mean.where(held))
        is_beyond[held] = beyond(nearest_table(nearest.where(~held), nearest_edges), nearest.where(held))
        constant = mean_table(mean.where(~held), (), coverage)
        widths.append((width_m(table, mean.where(held)), width_m(constant, mean.where(held))))
    bins = bins_of(edges, mean.predicted_m)
    by_scene = coverage_by_scene(covered, mean.scene)
    return HeldOutRecord(
        num_scenes=scores.num_scenes,
        num_frames=len(scores.frames),
        num_patches=len(covered),
        patches=float(covered.mean()),
        scenes=float(by_scene.mean()),
        worst_scenes=float(np.quantile(by_scene, 0.1)),
        bins=tuple(float(covered[bins == number].mean()) for number in range(len(edges) + 1)),
        nearest=float(is_beyond.mean()),
        width=sum(one for one, _ in widths) / sum(one for _, one in widths),
    )
