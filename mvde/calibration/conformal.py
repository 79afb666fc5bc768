"""Split conformal prediction by scene: factors of a prediction whose interval holds the truth with a stated coverage.

Scores are log(truth / prediction) of patches. Patches of one scene share much of their error, so scenes are what is
exchangeable: each scene weighs alike, and its patches share its weight. Bins of the prediction have quantiles of their
own (Mondrian: Vovk et al., 2005). These are then moved away from the median, all by one ratio, which makes up for the
scenes that they were seen in: it is that which holds for scenes left out, where a scene still to come has a weight of
its own and counts as beyond any bound (hierarchical conformal prediction: Lee, Barber and Willett, arXiv 2306.06342;
Dunn, Wasserman and Ramdas, arXiv 1809.07441; normalised scores: Romano, Patterson and Candes, arXiv 1905.03222). With
quantiles of each bin and end corrected by themselves, that one scene would be counted as missed twice in every bin,
and coverage would be above what is stated by as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MAX_BINS = 6
"""Bins of distance at most; with more, those of 64 scenes hold too few patches of too few scenes."""
MIN_BIN_SCENES = 32
"""Fewest scenes with patches in a bin, unless there is only one: from 19 on a bound of 95 % exists at all."""
NUM_FOLDS = 5
_NARROWEST = 1e-6
"""Least distance of an end from the median, of the logarithm; depth is float32."""


@dataclass(frozen=True)
class Scores:
    """Predictions (n,) > 0 in metres, log(truth / prediction) (n,), and numbers of scenes (n,) from 0, all float64.

    The scenes' numbers are int64.
    """

    predicted_m: Floats
    log_ratio: Floats
    scene: Integers

    def where(self, chosen: NDArray[np.bool_]) -> Scores:
        """The scores of a mask (n,)."""
        return Scores(self.predicted_m[chosen], self.log_ratio[chosen], self.scene[chosen])


def bin_edges(scores: Scores, max_bins: int = MAX_BINS) -> tuple[float, ...]:
    """Ascending edges in metres between bins of equal weight, of which each holds ``MIN_BIN_SCENES`` scenes or more."""
    weights = _weights(scores.scene)
    order = np.argsort(scores.predicted_m, kind="stable")
    reached = np.cumsum(weights[order])
    shares = np.arange(1, max_bins) / max_bins
    places = order[np.searchsorted(reached, shares * reached[-1])]
    edges = sorted({float(np.float32(scores.predicted_m[place])) for place in places})
    while edges and min(counts := _scenes_by_bin(scores, edges)) < MIN_BIN_SCENES:
        smallest = counts.index(min(counts))
        sides = [side for side in (smallest - 1, smallest) if 0 <= side < len(edges)]  # edges below and above it
        del edges[min(sides, key=lambda side: counts[side] + counts[side + 1])]
    return tuple(edges)


def bins_of(edges: Sequence[float], predicted_m: Floats) -> NDArray[np.intp]:
    """Bin of each prediction (n,): an edge itself belongs to the bin above it."""
    return np.searchsorted(np.asarray(edges, np.float64), predicted_m, side="right")


def interval_factors(
    scores: Scores, edges: Sequence[float], coverage: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lower and upper factor of each bin: the share ``coverage`` of truths is between prediction * lower and * upper.

    Each end is missed by about half of the others. Raises :class:`CalibrationError` for too few scenes.
    """
    miss = (1 - coverage) / 2
    return _factors(scores, edges, coverage, (miss, 1 - miss))


def bound_factors(scores: Scores, edges: Sequence[float], coverage: float) -> tuple[float, ...]:
    """Factor of each bin: the share ``coverage`` of truths is at or above prediction * factor.

    Raises :class:`CalibrationError` for too few scenes.
    """
    return _factors(scores, edges, coverage, (1 - coverage, math.inf))[0]


def folds_of(scores: Scores) -> Integers:
    """Number of the fold (n,) that each score's scene is in, 0 to ``NUM_FOLDS`` - 1."""
    _, rank = np.unique(scores.scene, return_inverse=True)
    folds: Integers = rank.astype(np.int64) % NUM_FOLDS
    return folds


@dataclass(frozen=True)
class _Bands:
    """Lower end, median and upper end of log(truth / prediction) in each bin, (b,)."""

    edges: Sequence[float]
    lower: Floats
    middle: Floats
    upper: Floats

    @classmethod
    def of(cls, scores: Scores, edges: Sequence[float], shares: tuple[float, float]) -> _Bands:
        """Quantiles of each bin at two shares; one of infinity is infinite."""
        bins = bins_of(edges, scores.predicted_m)
        each = [scores.where(bins == number) for number in range(len(edges) + 1)]
        return cls(edges, *np.array([_quantiles(one, (shares[0], 0.5, shares[1])) for one in each]).T)

    def distances(self, scores: Scores) -> Floats:
        """How far each score (n,) is from the median: 1 at the bin's end on its side."""
        bins = bins_of(self.edges, scores.predicted_m)
        off = scores.log_ratio - self.middle[bins]
        below = np.maximum(self.middle - self.lower, _NARROWEST)[bins]
        above = np.maximum(self.upper - self.middle, _NARROWEST)[bins]
        found: Floats = np.maximum(-off / below, off / above)
        return found


def _factors(
    scores: Scores, edges: Sequence[float], coverage: float, shares: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Quantiles of each bin, moved away from its median by the ratio that holds ``coverage`` of scenes left out."""
    folds, distances = folds_of(scores), np.zeros(len(scores.scene))
    for fold in range(NUM_FOLDS):
        held = folds == fold
        bands = _Bands.of(scores.where(~held), edges, shares)
        distances[held] = bands.distances(scores.where(held))
    ratio, bands = _conformal_quantile(distances, scores.scene, coverage), _Bands.of(scores, edges, shares)
    lower = np.exp(bands.middle - ratio * np.maximum(bands.middle - bands.lower, _NARROWEST))
    upper = np.exp(bands.middle + ratio * np.maximum(bands.upper - bands.middle, _NARROWEST))
    return tuple(lower.tolist()), tuple(upper.tolist())


def _weights(scene: Integers) -> Floats:
    """Weights (n,) that give each scene 1 in all."""
    _, rank, counts = np.unique(scene, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / counts[rank]
    return weights


def _scenes_by_bin(scores: Scores, edges: Sequence[float]) -> list[int]:
    bins = bins_of(edges, scores.predicted_m)
    return [len(np.unique(scores.scene[bins == number])) for number in range(len(edges) + 1)]


def _quantiles(scores: Scores, shares: Sequence[float]) -> list[float]:
    """Smallest log ratios that reach ``shares`` of the weight; infinite for more than all, 0 without scores."""
    if not len(scores.scene):
        return [0.0] * len(shares)
    order = np.argsort(scores.log_ratio, kind="stable")
    reached = np.cumsum(_weights(scores.scene)[order])
    places = np.searchsorted(reached, np.array(shares) * reached[-1] * (1 - 1e-12))
    found: list[float] = np.append(scores.log_ratio[order], math.inf)[places].tolist()
    return found


def _conformal_quantile(distances: Floats, scene: Integers, share: float) -> float:
    """Smallest distance that reaches ``share`` of the weight of all scenes and of one to come, which is infinite."""
    num_scenes = len(np.unique(scene))
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(_weights(scene)[order])
    place = int(np.searchsorted(reached, share * (num_scenes + 1) * (1 - 1e-12)))
    if place >= len(order):
        needed = math.ceil(share / (1 - share) * (1 - 1e-12))
        raise CalibrationError(
            f"a bound that holds for {share:.1%} needs {needed} scenes or more, but got {num_scenes}; film more "
            "scenes, or lower the coverage"
        )
    return float(distances[order[place]])
