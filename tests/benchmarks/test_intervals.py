"""The benchmark of intervals: splits by scene, fields of view, and the scores that it keeps."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mvde.calibration.conformal import Scores


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    """Names of the script, as attributes."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/intervals.py")))


def drawn(num_scenes: int, seed: int) -> Scores:
    """Scores of 30 patches a scene, whose error is halved beyond 2 m."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(num_scenes), 30)
    predicted = rng.uniform(0.5, 4, len(scene))
    error = rng.normal(0, 0.1, num_scenes)[scene] + rng.normal(0, 0.1, len(scene))
    return Scores(predicted, error * np.where(predicted > 2, 0.5, 1), scene)


def test_other_splits_are_by_scene_and_hold_what_is_stated(script: SimpleNamespace) -> None:
    shares, worst, widths = script.of_other_splits(drawn(120, 0), drawn(60, 1), 0.9)
    assert len(shares) == len(worst) == len(widths) == script.NUM_SPLITS
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)
    assert np.std(shares) > 0.003
    assert (worst <= shares).all()
    assert np.mean(widths) < 0.9


def test_thirds_of_the_cameras_and_kept_scores(script: SimpleNamespace) -> None:
    scores = drawn(30, 2)
    factor = np.repeat([1.1, 0.9, 1.0], 300)
    given: Any = script.Both(scores, scores, factor)
    parts = script.by_camera(given)
    assert [part.factor[0] for part in parts.values()] == [0.9, 1.0, 1.1]
    assert sum(len(part.mean.scene) for part in parts.values()) == 900
    np.testing.assert_array_equal(parts["narrowest third"].mean.scene, np.repeat(np.arange(10), 30))
    kept = script._unpacked(script._packed({"a": given}), "a")
    np.testing.assert_array_equal(kept.nearest.log_ratio, scores.log_ratio)
    np.testing.assert_array_equal(kept.factor, factor)
