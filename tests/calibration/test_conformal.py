"""Conformal factors by scene: coverage of scenes still to come, and how they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.calibration.conformal import (
    MIN_BIN_SCENES,
    Scores,
    bin_edges,
    bins_of,
    folds_of,
    lower_factors,
    upper_factors,
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


def test_the_factor_is_the_quantile_of_hierarchical_conformal_prediction() -> None:
    scores = drawn(40)
    found = upper_factors(scores, (), 0.1)[0]
    # By the definition: the smallest score that weighs 0.9 with 1 / (41 n_k) a patch, and 1 / 41 at infinity.
    counts = np.bincount(scores.scene)
    weight = 1 / (41 * counts[scores.scene])
    expected = min(one for one in scores.log_ratio if weight[scores.log_ratio <= one].sum() >= 0.9 - 1e-12)
    assert found == pytest.approx(np.exp(expected), rel=1e-12)
    mirrored = Scores(scores.predicted_m, -scores.log_ratio, scores.scene)
    assert lower_factors(mirrored, (), 0.1)[0] == pytest.approx(1 / found, rel=1e-12)


def test_new_scenes_are_covered_as_stated() -> None:
    shares = []
    for seed in range(20):
        scores = drawn(64, seed)
        edges = bin_edges(scores)
        low, high = np.log(lower_factors(scores, edges, 0.05)), np.log(upper_factors(scores, edges, 0.05))
        new = drawn(200, 1000 + seed)
        bins = bins_of(edges, new.predicted_m)
        is_inside = (new.log_ratio >= low[bins]) & (new.log_ratio <= high[bins])
        shares.append(np.mean([is_inside[new.scene == one].mean() for one in range(200)]))
    assert 0.89 < np.mean(shares) < 0.945  # one scene of 65 in each bin and end is infinite: at most 3 points more


def test_patches_of_one_scene_count_as_one() -> None:
    once = drawn(40)
    scene = once.scene == 7
    factor = upper_factors(once, (), 0.1)
    again = [np.concatenate([one, *[one[scene]] * 50]) for one in (once.predicted_m, once.log_ratio, once.scene)]
    assert upper_factors(Scores(*again), (), 0.1) == factor


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
        upper_factors(drawn(18), (), 0.05)
    assert np.isfinite(upper_factors(drawn(19), (), 0.05)).all()


def test_a_scene_is_in_one_fold() -> None:
    scores = drawn(33, first=100)
    folds = folds_of(scores)
    assert {len(set(folds[scores.scene == one])) for one in np.unique(scores.scene)} == {1}
    assert np.bincount([folds[scores.scene == one][0] for one in np.unique(scores.scene)]).tolist() == [7, 7, 7, 6, 6]
