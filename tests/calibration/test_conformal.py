"""Conformal factors by scene: coverage of scenes still to come, and how they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.calibration.conformal import (
    MIN_BIN_SCENES,
    Scores,
    bin_edges,
    bins_of,
    bound_factors,
    folds_of,
    interval_factors,
)
from mvde.errors import CalibrationError


def drawn(num_scenes: int, seed: int = 0, first: int = 0) -> Scores:
    """Scores whose error has a part common to a scene, grows with distance, and is of 1 to 60 patches a scene."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 61, num_scenes)
    scene = np.repeat(np.arange(first, first + num_scenes), counts)
    predicted = np.exp(rng.normal(0.5, 0.3, num_scenes).repeat(counts) + rng.normal(0, 0.4, len(scene)))
    common = rng.normal(0, 0.2, num_scenes).repeat(counts)
    return Scores(predicted, (common + rng.normal(0.05, 0.1, len(scene))) * np.sqrt(predicted), scene)


def smallest_reaching(values: np.ndarray, scene: np.ndarray, share: float, of_scenes: int) -> float:
    """By the definition: the smallest value that ``share`` of ``of_scenes`` equal scenes is at or below."""
    counts = np.bincount(scene)
    weight = 1 / (of_scenes * counts[scene])
    return min(one for one in np.unique(values) if weight[values <= one].sum() >= share - 1e-12)


def test_the_factors_hold_a_conformal_share_of_scenes_left_out() -> None:
    scores = drawn(40)

    def ends(chosen: np.ndarray) -> list[float]:
        values, scene = scores.log_ratio[chosen], np.unique(scores.scene[chosen], return_inverse=True)[1]
        return [smallest_reaching(values, scene, share, scene.max() + 1) for share in (0.05, 0.5, 0.95)]

    distances = np.zeros(len(scores.scene))
    for fold in range(5):
        held = scores.scene % 5 == fold
        low, middle, high = ends(~held)
        off = scores.log_ratio[held] - middle
        distances[held] = np.where(off < 0, off / (low - middle), off / (high - middle))
    ratio = smallest_reaching(distances, scores.scene, 0.9, 41)  # a scene to come weighs as much, at infinity
    low, middle, high = ends(np.ones(len(scores.scene), bool))
    found = interval_factors(scores, (), 0.9)
    assert found[0][0] == pytest.approx(np.exp(middle + ratio * (low - middle)), rel=1e-12)
    assert found[1][0] == pytest.approx(np.exp(middle + ratio * (high - middle)), rel=1e-12)
    mirrored = Scores(scores.predicted_m, -scores.log_ratio, scores.scene)
    assert interval_factors(mirrored, (), 0.9)[0][0] == pytest.approx(1 / found[1][0], abs=0.02)


@pytest.mark.parametrize("num_scenes", [40, 150])
def test_new_scenes_are_covered_as_stated(num_scenes: int) -> None:
    shares, above, by_bin = [], [], []
    new = drawn(1000, 1000)
    for seed in range(12):
        scores = drawn(num_scenes, seed)
        edges = bin_edges(scores)
        low, high = (np.log(one) for one in interval_factors(scores, edges, 0.9))
        bound = np.log(bound_factors(scores, edges, 0.95))
        bins = bins_of(edges, new.predicted_m)
        is_inside = (new.log_ratio >= low[bins]) & (new.log_ratio <= high[bins])
        weight = 1 / np.bincount(new.scene)[new.scene] / 1000
        shares.append((is_inside * weight).sum())
        above.append(((new.log_ratio >= bound[bins]) * weight).sum())
        by_bin += [is_inside[bins == number].mean() for number in range(len(edges) + 1)]
    extra = 1.5 / num_scenes  # one scene to come, and factors of four fifths of the scenes in place of all
    assert 0.885 < np.mean(shares) < 0.9 + extra
    assert 0.94 < np.mean(above) < 0.95 + extra
    assert np.mean(by_bin) > 0.87


def test_patches_of_one_scene_count_as_one() -> None:
    once = drawn(40)
    scene = once.scene == 7
    again = [np.concatenate([one, *[one[scene]] * 50]) for one in (once.predicted_m, once.log_ratio, once.scene)]
    assert interval_factors(Scores(*again), (), 0.9) == interval_factors(once, (), 0.9)
    assert bound_factors(Scores(*again), (), 0.9) == bound_factors(once, (), 0.9)


def test_equal_errors_give_an_interval_about_them() -> None:
    scene = np.repeat(np.arange(40), 3)
    scores = Scores(np.ones(120), np.full(120, 0.25), scene)
    low, high = interval_factors(scores, (), 0.9)
    assert low[0] <= np.exp(0.25) <= high[0]
    assert np.log(high[0] / low[0]) < 1e-5


def test_bins_hold_enough_scenes_each() -> None:
    many = drawn(400)
    edges = bin_edges(many)
    assert len(edges) == 5
    bins = bins_of(edges, many.predicted_m)
    assert min(len(np.unique(many.scene[bins == number])) for number in range(6)) >= MIN_BIN_SCENES
    few = drawn(36, 3)
    edges = bin_edges(few)
    bins = bins_of(edges, few.predicted_m)
    assert len(edges) < 5
    assert all(len(np.unique(few.scene[bins == number])) >= MIN_BIN_SCENES for number in range(len(edges) + 1))
    assert bin_edges(drawn(MIN_BIN_SCENES - 2)) == ()


def test_an_edge_belongs_to_the_bin_above() -> None:
    assert bins_of((1.0, 2.0), np.array([0.5, 1.0, 1.5, 2.0, 9.0])).tolist() == [0, 1, 1, 2, 2]


def test_too_few_scenes_for_a_bound_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"holds for 95.0% needs 19 scenes or more, but got 18; film"):
        bound_factors(drawn(18), (), 0.95)
    assert np.isfinite(bound_factors(drawn(19), (), 0.95)).all()
    with pytest.raises(CalibrationError, match=r"holds for 90.0% needs 9 scenes or more, but got 8; film"):
        interval_factors(drawn(8), (), 0.9)


def test_a_scene_is_in_one_fold() -> None:
    scores = drawn(33, first=100)
    folds = folds_of(scores)
    assert {len(set(folds[scores.scene == one])) for one in np.unique(scores.scene)} == {1}
    assert np.bincount([folds[scores.scene == one][0] for one in np.unique(scores.scene)]).tolist() == [7, 7, 7, 6, 6]
