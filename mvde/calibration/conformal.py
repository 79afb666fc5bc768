"""Split conformal prediction by scene: factors of a prediction whose interval holds the truth with a stated coverage.

Scores are log(truth / prediction) of patches. Patches of one scene share much of their error, so scenes are what is
exchangeable: each scene weighs alike, its patches share its weight, and a scene still to come has a weight of its own,
which counts as an error of any size. Then an interval holds the truth of a patch of a new scene with at least the
stated probability (hierarchical conformal prediction: Lee, Barber and Willett, arXiv 2306.06342; Dunn, Wasserman and
Ramdas, arXiv 1809.07441). Bins of the prediction have factors of their own (Mondrian: Vovk et al., 2005).
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


def lower_factors(scores: Scores, edges: Sequence[float], miss: float) -> tuple[float, ...]:
    """Factor of each bin that leaves at most the share ``miss`` of truths below prediction * factor."""
    return tuple(1 / one for one in upper_factors(_mirrored(scores), edges, miss))


def upper_factors(scores: Scores, edges: Sequence[float], miss: float) -> tuple[float, ...]:
    """Factor of each bin that leaves at most the share ``miss`` of truths above prediction * factor.

    Raises :class:`CalibrationError` where a bin holds too few scenes for that.
    """
    bins = bins_of(edges, scores.predicted_m)
    return tuple(math.exp(_upper_quantile(scores.where(bins == number), 1 - miss)) for number in range(len(edges) + 1))


def folds_of(scores: Scores) -> Integers:
    """Number of the fold (n,) that each score's scene is in, 0 to ``NUM_FOLDS`` - 1."""
    _, rank = np.unique(scores.scene, return_inverse=True)
    folds: Integers = rank.astype(np.int64) % NUM_FOLDS
    return folds


def _mirrored(scores: Scores) -> Scores:
    return Scores(scores.predicted_m, -scores.log_ratio, scores.scene)


def _weights(scene: Integers) -> Floats:
    """Weights (n,) that give each scene 1 in all."""
    _, rank, counts = np.unique(scene, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / counts[rank]
    return weights


def _scenes_by_bin(scores: Scores, edges: Sequence[float]) -> list[int]:
    bins = bins_of(edges, scores.predicted_m)
    return [len(np.unique(scores.scene[bins == number])) for number in range(len(edges) + 1)]


def _upper_quantile(scores: Scores, share: float) -> float:
    """Smallest score that reaches ``share`` of the weight of all scenes and of one to come, which is infinite."""
    num_scenes = len(np.unique(scores.scene))
    order = np.argsort(scores.log_ratio, kind="stable")
    reached = np.cumsum(_weights(scores.scene)[order])
    needed = share * (num_scenes + 1)
    place = int(np.searchsorted(reached, needed * (1 - 1e-12)))
    if place >= len(order):
        raise CalibrationError(
            f"a bound that holds for {share:.1%} needs {math.ceil(share / (1 - share))} scenes or more, but got "
            f"{num_scenes}; film more scenes, or lower the coverage"
        )
    return float(scores.log_ratio[order[place]])
