"""Choice of the boxes that questions are about, so that height in the picture does not give the answer away.

Pictures are cut into square cells, whose distance is the median depth of their pixels. A cell is used if at least half
of it is known and its depth is of one surface. Of all pairs that differ clearly, equal numbers are drawn in which the
lower cell is the nearer one and in which it is the farther one, separately for every two heights: a model that looks
at nothing but positions is right half of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.errors import DatasetError, UsageError
from mvde.vlm.choices import QuestionKind, Rounding
from mvde.vlm.questions import (
    COLOURS,
    Box,
    Cue,
    MarkedPair,
    Question,
    choice_question,
    metric_question,
    relative_question,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.datasets.sample import DepthDataset

_MOST_CANDIDATES = 64
"""Pairs kept of a frame and cue; more would let a few frames fill the data set."""
_LEAST_KNOWN = 0.5
_QUARTILES = (0.25, 0.75)


@dataclass(frozen=True)
class SamplingSettings:
    """How boxes are chosen.

    ``cells``: cells along the picture's shorter side. ``pairs_per_frame``: pairs drawn of a frame, on average at most.
    ``least_ratio``: farther over nearer distance of a pair. ``most_spread``: largest ratio between the quartiles of a
    cell's depth; above it the cell shows an edge, and no single distance describes it.
    """

    cells: int = 12
    pairs_per_frame: int = 4
    least_ratio: float = 1.15
    most_spread: float = 1.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cells < 2 or self.pairs_per_frame < 1 or self.seed < 0:
            raise UsageError(
                f"cells, pairs per frame and seed must be at least 2, 1 and 0, but got {self.cells}, "
                f"{self.pairs_per_frame} and {self.seed}"
            )
        if not (self.least_ratio > 1 and self.most_spread > 1):
            raise UsageError(
                f"ratios of distances must be above 1, but got {self.least_ratio:g} (pairs) and {self.most_spread:g} "
                "(within a cell)"
            )


@dataclass(frozen=True)
class Cells:
    """Distances (rows, columns) float64 in metres of a picture's cells, NaN where a cell is not used."""

    distance_m: NDArray[np.float64]
    side: int
    size: tuple[int, int]

    def box(self, index: int) -> Box:
        """Box of a cell, counted row by row."""
        rows, columns = self.distance_m.shape
        row, column = divmod(index, columns)
        top = (self.size[0] - rows * self.side) // 2 + row * self.side
        left = (self.size[1] - columns * self.side) // 2 + column * self.side
        return Box(top, left, top + self.side, left + self.side)


def cells_of(depth_m: NDArray[np.floating], settings: SamplingSettings) -> Cells:
    """Cut depth (H, W) in metres, 0, NaN or infinite where unknown, into cells.

    Raises UsageError if a cell would be smaller than two pixels.
    """
    height, width = depth_m.shape
    side = min(height, width) // settings.cells
    if side < 2:
        raise UsageError(
            f"{settings.cells} cells along {min(height, width)} pixels are smaller than 2 pixels; use at most "
            f"{min(height, width) // 2}"
        )
    rows, columns = height // side, width // side
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    used = depth_m[top : top + rows * side, left : left + columns * side].astype(np.float64)
    parts = used.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, side * side)
    known = np.isfinite(parts) & (parts > 0)
    ordered = np.sort(np.where(known, parts, np.inf), axis=-1)
    count = known.sum(axis=-1)

    def quantile(fraction: float) -> NDArray[np.float64]:
        at = np.floor(fraction * np.maximum(count - 1, 0)).astype(np.intp)
        return np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0]

    low, middle, high = (quantile(fraction) for fraction in (_QUARTILES[0], 0.5, _QUARTILES[1]))
    with np.errstate(invalid="ignore"):
        good = (count >= _LEAST_KNOWN * side * side) & (high <= settings.most_spread * low)
    return Cells(np.where(good, middle, np.nan), side, (height, width))


def draw_pairs(dataset: DepthDataset, frames: Sequence[int], settings: SamplingSettings) -> list[MarkedPair]:
    """Draw balanced pairs from the ``frames`` of a data set, ordered by frame.

    For every two heights, as many pairs are consistent as counter, and of each the red box is the nearer one in half.
    Raises DatasetError if no two boxes of any frame qualify.
    """
    rng = np.random.default_rng(settings.seed)
    bins: dict[tuple[int, int], dict[Cue, list[MarkedPair]]] = defaultdict(lambda: {cue: [] for cue in Cue})
    for frame in frames:
        for heights, pair in _candidates(frame, cells_of(dataset[frame].depth_m, settings), settings, rng):
            bins[heights][pair.cue].append(pair)
    drawn = [pair for heights in sorted(bins) for pair in _balanced(bins[heights], rng)]
    wanted = 2 * (settings.pairs_per_frame * len(frames) // 2)
    if not drawn:
        raise DatasetError(
            f"no two of the {settings.cells} cells a side differ by {settings.least_ratio:g} in distance both with and "
            f"against height, in {len(frames)} frames; check the scale of the depth, use more frames or another number "
            "of cells"
        )
    return sorted(_thinned(drawn, wanted, rng), key=lambda pair: (pair.frame, pair.red.corners(), pair.blue.corners()))


def ask_of(
    pairs: Sequence[MarkedPair], kinds: Sequence[QuestionKind], rounding: Rounding
) -> Iterator[tuple[MarkedPair, list[Question]]]:
    """Ask every kind of question of every pair; which box is (A), and which one is measured, alternates."""
    turns = dict.fromkeys(Cue, 0)
    for pair in pairs:
        turn, turns[pair.cue] = turns[pair.cue], turns[pair.cue] + 1
        yield pair, [_question(pair, kind, rounding, turn) for kind in kinds]


def _question(pair: MarkedPair, kind: QuestionKind, rounding: Rounding, turn: int) -> Question:
    match kind:
        case QuestionKind.RELATIVE:
            return relative_question(pair)
        case QuestionKind.CHOICE:
            # The first of the options is right in every second question, whatever the colour.
            first = pair.nearer if turn % 2 else COLOURS[1 - COLOURS.index(pair.nearer)]
            return choice_question(pair, first)
        case QuestionKind.METRIC:
            return metric_question(pair, COLOURS[turn % 2], rounding)


def _candidates(
    frame: int, cells: Cells, settings: SamplingSettings, rng: np.random.Generator
) -> Iterator[tuple[tuple[int, int], MarkedPair]]:
    """Pairs of a frame with the rows of their upper and lower cell; the red box is the upper one for now."""
    flat = cells.distance_m.ravel()
    used = np.flatnonzero(np.isfinite(flat))
    if len(used) < 2:
        return
    middle = float(np.median(flat[used]))
    columns = cells.distance_m.shape[1]
    upper, lower = (used[part] for part in np.triu_indices(len(used), 1))
    ratio = flat[lower] / flat[upper]
    rows = upper // columns, lower // columns
    for is_cue in (ratio * settings.least_ratio <= 1, ratio >= settings.least_ratio):
        found = np.flatnonzero(is_cue & (rows[0] != rows[1]))
        for at in rng.permutation(found)[:_MOST_CANDIDATES]:
            above, below = int(upper[at]), int(lower[at])
            yield (
                (int(rows[0][at]), int(rows[1][at])),
                MarkedPair(
                    frame,
                    cells.box(above),
                    cells.box(below),
                    float(flat[above]),
                    float(flat[below]),
                    middle,
                    cells.size,
                ),
            )


def _balanced(by_cue: dict[Cue, list[MarkedPair]], rng: np.random.Generator) -> list[MarkedPair]:
    """Return equally many pairs of both cues, alternating, with the colours swapped in every second one of each."""
    number = min(len(pairs) for pairs in by_cue.values())
    start = int(rng.integers(2))
    columns = [
        [
            _coloured(pairs[at], swapped=(turn + start) % 2 == 1)
            for turn, at in enumerate(rng.permutation(len(pairs))[:number])
        ]
        for pairs in by_cue.values()
    ]
    return [pair for row in zip(*columns, strict=True) for pair in row]


def _coloured(pair: MarkedPair, *, swapped: bool) -> MarkedPair:
    if not swapped:
        return pair
    return MarkedPair(pair.frame, pair.blue, pair.red, pair.blue_m, pair.red_m, pair.middle_m, pair.size)


def _thinned(drawn: list[MarkedPair], wanted: int, rng: np.random.Generator) -> list[MarkedPair]:
    """Keep ``wanted`` pairs, two neighbours (one of each cue, of equal heights) at a time."""
    doubles = len(drawn) // 2
    kept = np.sort(rng.permutation(doubles)[: wanted // 2])
    return [drawn[2 * at + which] for at in kept for which in (0, 1)]
