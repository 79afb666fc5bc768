"""Metrics against per-pixel loops and SciPy's least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvde.errors import UsageError
from mvde.metrics import MetricTotals, depth_errors, depth_metrics

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "log10", "delta1", "delta2", "delta3")


@pytest.fixture
def depths() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    target = rng.uniform(0.3, 8, (15, 20))
    return (target * np.exp(rng.normal(0, 0.3, target.shape))).astype(np.float32), target.astype(np.float32)


def test_metrics_are_the_published_formulas(depths: tuple[np.ndarray, np.ndarray]) -> None:
    pairs = [(float(p), float(t)) for p, t in zip(depths[0].ravel(), depths[1].ravel(), strict=True)]
    n = len(pairs)
    logs = [math.log(p) - math.log(t) for p, t in pairs]
    expected = {
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / n,
        "sq_rel": sum((p - t) ** 2 / t for p, t in pairs) / n,
        "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "rmse_log": math.sqrt(sum(g**2 for g in logs) / n),
        "silog": 100 * math.sqrt(sum(g**2 for g in logs) / n - (sum(logs) / n) ** 2),
        "log10": sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n,
        "delta1": sum(max(p / t, t / p) < 1.25 for p, t in pairs) / n,
        "delta2": sum(max(p / t, t / p) < 1.25**2 for p, t in pairs) / n,
        "delta3": sum(max(p / t, t / p) < 1.25**3 for p, t in pairs) / n,
    }
    measured = depth_metrics(*depths)
    assert tuple(measured) == METRICS
    assert measured == pytest.approx(expected, rel=1e-9)


def test_a_perfect_prediction_has_no_error(depths: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = depth_metrics(depths[1], depths[1])
    assert [metrics[name] for name in METRICS] == pytest.approx([0] * 6 + [1] * 3)


def test_only_valid_pixels_count(depths: tuple[np.ndarray, np.ndarray]) -> None:
    pred, target = depths
    spoilt, mask = target.copy(), np.ones(target.shape, bool)
    spoilt[0], spoilt[1], spoilt[2] = 0, np.nan, -1
    mask[3] = False
    wrong = pred.copy()
    wrong[:4] = 1e6
    assert depth_metrics(wrong, spoilt, mask) == depth_metrics(pred[4:], target[4:])


@pytest.mark.parametrize("alignment", ["median", "scale"])
def test_a_wrong_scale_is_repaired_by_the_alignment(alignment: str, depths: tuple[np.ndarray, np.ndarray]) -> None:
    assert depth_metrics(3.7 * depths[1], depths[1], alignment=alignment)["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_scale_and_shift_in_inverse_depth_are_repaired() -> None:
    target = np.random.default_rng(0).uniform(0.5, 5, (9, 9))
    pred = 1 / (0.4 / target + 0.05)
    assert depth_metrics(pred, target, alignment="scale_shift")["abs_rel"] == pytest.approx(0, abs=1e-9)


def test_alignments_minimise_what_they_say(depths: tuple[np.ndarray, np.ndarray]) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    pred, target = (x.ravel().astype(np.float64) for x in depths)
    scale = optimize.least_squares(lambda s: s[0] * pred - target, [1.0]).x[0]
    fit = optimize.least_squares(lambda s: s[0] / pred + s[1] - 1 / target, [1.0, 0.0]).x
    shifted = 1 / np.maximum(fit[0] / pred + fit[1], 1 / target.max())
    assert depth_metrics(pred, target, alignment="scale") == pytest.approx(
        depth_metrics(scale * pred, target), rel=1e-4
    )
    assert depth_metrics(pred, target, alignment="scale_shift") == pytest.approx(
        depth_metrics(shifted, target), rel=1e-4
    )


def test_an_aligned_depth_beyond_infinity_stays_finite() -> None:
    target = np.array([1.0, 1.0, 1.0, 1.0, 9.0])
    metrics = depth_metrics(np.array([1.0, 1.1, 0.9, 1.0, 50.0]), target, alignment="scale_shift")
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((np.ones((2, 2)), np.ones((2, 3))), {}, "resize"),
        ((np.ones((2, 2)), np.ones((2, 2)), np.ones((3, 2))), {}, "valid has shape"),
        ((np.ones((2, 2)), np.zeros((2, 2))), {}, "no valid pixel"),
        ((np.full((2, 2), np.nan), np.ones((2, 2))), {}, "not finite"),
        ((np.ones((2, 2)), np.ones((2, 2))), {"alignment": "mean"}, "none, median, scale, scale_shift"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[np.ndarray, ...], options: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        depth_metrics(*arguments, **options)


def test_masked_pixels_are_not_valid(depths: tuple[np.ndarray, np.ndarray]) -> None:
    pred, target = depths
    mask = np.arange(target.size).reshape(target.shape) % 3 == 0
    expected = depth_metrics(pred, target, ~mask)
    assert depth_metrics(pred, np.ma.masked_array(target, mask)) == expected
    assert depth_metrics(pred, target, np.ma.masked_array(np.ones_like(mask), mask)) == expected
    assert depth_metrics(np.ma.masked_array(pred, mask), target, ~mask) == expected
    with pytest.raises(UsageError, match="not finite"):
        depth_metrics(np.ma.masked_array(pred, mask), target)


def test_totals_average_images_with_equal_weight() -> None:
    totals = MetricTotals()
    totals.add("a", {"abs_rel": 0.1, "rmse": 1.0})
    totals.add("b", {"abs_rel": 0.3, "rmse": 2.0})
    assert totals.overall() == pytest.approx({"abs_rel": 0.2, "rmse": 1.5})
    assert totals.to_dict()["num_images"] == 2
    with pytest.raises(UsageError, match="added before"):
        totals.add("a", {"abs_rel": 0.1, "rmse": 1.0})
    with pytest.raises(UsageError, match="no image"):
        MetricTotals().overall()


def test_totals_of_parts_are_those_of_the_whole(depths: tuple[np.ndarray, np.ndarray]) -> None:
    pred, target = depths
    whole, first, second = MetricTotals(), MetricTotals(), MetricTotals()
    for index, factor in enumerate((0.5, 1.0, 1.7)):
        for totals in (whole, second if index else first):
            totals.count(target.size, target.size - index)
            totals.add(str(index), depth_errors(factor * pred, target))
    joined = MetricTotals()
    for part in (first, second):
        joined.merge(part)
    assert joined.to_dict() == whole.to_dict()
    with pytest.raises(UsageError, match="'1' are in both"):
        joined.merge(second)
