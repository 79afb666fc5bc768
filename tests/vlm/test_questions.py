"""Questions about depth: distances of cells, balance against height in the picture, wording, rounding."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest

from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, UsageError
from mvde.vlm.questions import (
    Box,
    Cue,
    MarkedPair,
    QuestionKind,
    Rounding,
    choice_question,
    distance_text,
    metric_question,
    preferred_number,
    relative_question,
)
from mvde.vlm.questions_sampling import SamplingSettings, ask_of, cells_of, draw_pairs


class Frames:
    """Frames of the depth maps given."""

    depth_range_m = (0.1, 100.0)

    def __init__(self, depths: list[np.ndarray]) -> None:
        self.depths = depths

    def __len__(self) -> int:
        return len(self.depths)

    def __getitem__(self, index: int) -> DepthSample:
        depth = self.depths[index].astype(np.float32)
        return DepthSample(np.zeros((*depth.shape, 3), np.uint8), depth, None, f"frame {index}")


def rooms(count: int, size: tuple[int, int] = (48, 64)) -> Frames:
    """Frames whose floor comes nearer downwards, with blocks at random distances on it."""
    rng = np.random.default_rng(7)
    floor = np.linspace(6, 1, size[0])[:, None].repeat(size[1], 1)
    frames = []
    for _ in range(count):
        depth = floor.copy()
        for _ in range(8):
            top, left = rng.integers(0, size[0] - 16), rng.integers(0, size[1] - 16)
            depth[top : top + 16, left : left + 16] = rng.uniform(0.5, 8)
        frames.append(depth)
    return Frames(frames)


SETTINGS = SamplingSettings(cells=6, pairs_per_frame=6)


def test_the_distance_of_a_cell_is_its_median_where_it_is_known_and_of_one_surface() -> None:
    depth = np.full((12, 20), 2.0)
    depth[0:2, 0:2] = [[np.nan, 0.0], [np.inf, 3.0]]  # a quarter known
    depth[0:2, 2:4] = [[0.0, 3.0], [3.1, 3.2]]  # three quarters
    depth[2:4, 0:2] = [[1.0, 1.0], [4.0, 4.0]]  # an edge
    cells = cells_of(depth, SamplingSettings(cells=6))
    assert cells.distance_m.shape == (6, 10)
    assert math.isnan(cells.distance_m[0, 0])
    assert cells.distance_m[0, 1] == pytest.approx(3.1)
    assert math.isnan(cells.distance_m[1, 0])
    assert np.all(cells.distance_m[2:] == 2.0)


def test_cells_are_squares_in_the_middle_of_the_picture() -> None:
    depth = np.arange(1, 1 + 26 * 40, dtype=float).reshape(26, 40)
    settings = SamplingSettings(cells=8, most_spread=1e6)
    cells = cells_of(depth, settings)
    assert (cells.side, cells.distance_m.shape) == (3, (8, 13))
    box = cells.box(13 + 2)
    assert (box.top, box.left, box.bottom, box.right) == (4, 6, 7, 9)
    assert cells.distance_m[1, 2] == np.median(depth[4:7, 6:9])


def test_height_in_the_picture_tells_no_answer() -> None:
    """Also with both heights known: the best guess from them is right in half of the pairs."""
    pairs = draw_pairs(rooms(40), range(40), SETTINGS)
    assert len(pairs) > 100
    by_heights: dict[tuple[float, float], collections.Counter[bool]] = collections.defaultdict(collections.Counter)
    for pair in pairs:
        heights = sorted((pair.red.row, pair.blue.row))
        lower_is_nearer = (pair.red.row > pair.blue.row) == (pair.red_m < pair.blue_m)
        by_heights[heights[0], heights[1]][lower_is_nearer] += 1
    assert all(counts[True] == counts[False] for counts in by_heights.values())
    assert len(by_heights) > 5


def test_without_balance_height_would_tell() -> None:
    """What the test above guards against: in these rooms, lower is mostly nearer."""
    dataset, votes = rooms(40), collections.Counter[bool]()
    for frame in range(40):
        distance = cells_of(dataset[frame].depth_m, SETTINGS).distance_m
        upper, lower = distance[:-1], distance[1:]
        clear = np.isfinite(upper) & np.isfinite(lower) & (np.abs(np.log(upper / lower)) > math.log(1.15))
        votes.update((lower < upper)[clear].tolist())
    assert votes[True] > 1.5 * votes[False]


def test_neither_colour_is_nearer_more_often_in_either_cue() -> None:
    counts = collections.Counter((pair.cue, pair.nearer) for pair in draw_pairs(rooms(60), range(60), SETTINGS))
    for cue in Cue:
        share = counts[cue, "red"] / (counts[cue, "red"] + counts[cue, "blue"])
        assert 0.4 < share < 0.6


def test_every_pair_differs_clearly_and_states_the_distance_of_its_boxes() -> None:
    dataset = rooms(10)
    for pair in draw_pairs(dataset, range(10), SETTINGS):
        assert max(pair.red_m, pair.blue_m) / min(pair.red_m, pair.blue_m) >= 1.15 - 1e-9
        assert pair.red.row != pair.blue.row
        for colour in ("red", "blue"):
            box, distance_m = pair.box(colour)
            part = dataset[pair.frame].depth_m[box.top : box.bottom, box.left : box.right]
            below = np.sort(part.ravel())
            assert below[(part.size - 1) // 2] == pytest.approx(distance_m)


def test_equal_seeds_draw_equal_pairs() -> None:
    drawn = [draw_pairs(rooms(10), range(10), SamplingSettings(cells=6, seed=seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_frames_that_cannot_be_compared_are_refused() -> None:
    flat = Frames([np.full((48, 64), 2.0)])
    with pytest.raises(DatasetError, match=r"no two of the 6 cells a side differ by 1.15"):
        draw_pairs(flat, range(1), SETTINGS)
    with pytest.raises(UsageError, match="use at most 6"):
        cells_of(np.ones((12, 20)), SamplingSettings(cells=7))
    with pytest.raises(UsageError, match="at least 2, 1 and 0"):
        SamplingSettings(cells=1)
    with pytest.raises(UsageError, match="above 1"):
        SamplingSettings(least_ratio=1.0)


PAIR = MarkedPair(0, Box(0, 0, 4, 4), Box(10, 8, 14, 12), 2.0, 3.0, 2.5, (16, 20))


def test_questions_are_answered_by_the_distances() -> None:
    assert relative_question(PAIR).answer == "red"
    assert PAIR.cue is Cue.COUNTER  # the upper one is nearer
    first = choice_question(PAIR, "blue")
    assert first.text.endswith("\n(A) the blue box\n(B) the red box")
    assert first.answer == "(B)"
    assert first.options == ("the blue box", "the red box")
    far = metric_question(PAIR, "blue", Rounding.CENTIMETRE)
    assert far.text == "How far is the blue box from the camera in metres?"
    assert (far.answer, far.distance_m) == ("3.00 m", 3.0)
    assert far.cue is Cue.COUNTER  # low, but farther than the middle of the picture
    assert metric_question(PAIR, "red", Rounding.CENTIMETRE).cue is Cue.COUNTER


def test_options_and_colours_are_right_equally_often() -> None:
    pairs = draw_pairs(rooms(60), range(60), SETTINGS)
    answers: collections.Counter[tuple[Cue, str]] = collections.Counter()
    asked: collections.Counter[str] = collections.Counter()
    for _, (choice, metric) in ask_of(pairs, (QuestionKind.CHOICE, QuestionKind.METRIC), Rounding.CENTIMETRE):
        answers[choice.cue, choice.answer] += 1
        asked["red" if "red" in metric.text else "blue"] += 1
    for cue in Cue:
        assert abs(answers[cue, "(A)"] - answers[cue, "(B)"]) <= 1
    assert abs(asked["red"] - asked["blue"]) <= 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, 1.0), (1.11, 1.0), (1.13, 1.25), (0.3, 0.315), (9.5, 10.0), (2.83, 3.15), (0.0123, 0.0125), (70.0, 63.0)],
)
def test_preferred_numbers_are_the_nearest_of_the_series_r10(value: float, expected: float) -> None:
    assert preferred_number(value) == expected


def test_a_preferred_number_is_at_most_13_percent_off() -> None:
    for value in np.exp(np.random.default_rng(0).uniform(math.log(0.05), math.log(90), 500)):
        assert abs(math.log(preferred_number(value) / value)) < math.log(1.135)  # half of the widest step, 1.6/1.25


def test_distances_are_written_as_asked() -> None:
    assert distance_text(2.3456, Rounding.CENTIMETRE) == "2.35"
    assert distance_text(2.3456, Rounding.PREFERRED) == "2.5"
    with pytest.raises(UsageError, match="a positive number of metres, but got nan"):
        distance_text(math.nan, Rounding.CENTIMETRE)
