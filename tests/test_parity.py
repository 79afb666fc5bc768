"""Parity reports against known differences."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mvde.contract import DepthKind
from mvde.errors import ParityError, UsageError
from mvde.parity import MIN_RANGE_SHARE, MIN_REFERENCE_M, check, compare_depth, merge_reports


@pytest.fixture
def reference_m() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 8.0, (2, 32, 48)).astype(np.float32)


def test_equal_depth_has_no_difference(reference_m: np.ndarray) -> None:
    report = compare_depth(reference_m, reference_m, 16)
    assert (report.max_rel, report.mean_rel, report.p99_rel, report.max_abs_m) == (0, 0, 0, 0)
    assert report.stats == {"mean": 0, "var": 0, "grad": 0}
    assert report.num_images == 2


def test_scaled_depth_has_that_relative_difference(reference_m: np.ndarray) -> None:
    candidate_m = reference_m.astype(np.float64) * 1.001
    report = compare_depth(candidate_m, reference_m, 16)
    assert report.max_rel == pytest.approx(1e-3, rel=1e-6)
    assert report.mean_rel == pytest.approx(1e-3, rel=1e-6)
    assert report.p99_rel == pytest.approx(1e-3, rel=1e-6)
    assert report.max_abs_m == pytest.approx(1e-3 * reference_m.max(), rel=1e-6)
    patch_means = reference_m.astype(np.float64).reshape(2, 2, 16, 3, 16).mean(axis=(2, 4))
    assert report.stats["mean"] == pytest.approx(1e-3 * patch_means.max(), rel=1e-3)  # statistics are float32


def test_one_wrong_pixel_shows_in_the_maximum_not_in_the_quantile(reference_m: np.ndarray) -> None:
    candidate_m = reference_m.copy()
    candidate_m[1, 5, 7] *= 2
    report = compare_depth(candidate_m, reference_m, 16)
    assert report.max_rel == pytest.approx(1.0)
    assert report.p99_rel == 0
    assert report.mean_rel == pytest.approx(1 / reference_m.size)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["candidate", "reference", "both"])
def test_depth_that_is_not_finite_never_passes(reference_m: np.ndarray, value: float, where: str) -> None:
    candidate_m = reference_m.copy()
    if where != "reference":
        candidate_m[0, 0, 0] = value
    if where != "candidate":
        reference_m[0, 0, 0] = value
    with np.errstate(invalid="ignore"):
        report = compare_depth(candidate_m, reference_m, 16)
    assert report.max_rel == np.inf
    with pytest.raises(ParityError):
        check(report, 0.5)


def test_zero_reference_divides_by_the_floor() -> None:
    zeros = np.zeros((1, 16, 16), np.float32)
    report = compare_depth(zeros + np.float32(MIN_REFERENCE_M), zeros, 16)
    assert report.max_rel == pytest.approx(1.0)


def test_check_allows_the_tolerance_and_refuses_more(reference_m: np.ndarray) -> None:
    report = compare_depth(reference_m.astype(np.float64) * (1 + 1e-3), reference_m, 16)
    check(report, report.max_rel)
    with pytest.raises(ParityError, match=r"the int8 engine differs.*1\.00e-03.*at most 1\.0e-04"):
        check(report, 1e-4, what="the int8 engine")


@pytest.mark.parametrize("shape", [(32, 48), (1, 32, 48), (2, 32, 32), (2, 0, 48)])
def test_other_shapes_are_a_usage_error(reference_m: np.ndarray, shape: tuple[int, ...]) -> None:
    other = np.ones(shape, np.float32)
    with pytest.raises(UsageError, match="same shape"):
        compare_depth(other, other if len(shape) != 3 or 0 in shape else reference_m, 16)


def test_merging_equals_comparing_at_once(reference_m: np.ndarray) -> None:
    candidate_m = reference_m * np.float32(1.01) + np.float32(0.01)
    whole = compare_depth(candidate_m, reference_m, 16)
    merged = merge_reports([compare_depth(candidate_m[i : i + 1], reference_m[i : i + 1], 16) for i in (0, 1)])
    assert merged.max_rel == whole.max_rel
    assert merged.mean_rel == pytest.approx(whole.mean_rel)
    assert merged.stats == whole.stats
    assert merged.num_images == 2
    with pytest.raises(UsageError):
        merge_reports([])


def test_report_is_json(reference_m: np.ndarray) -> None:
    plain = dataclasses.asdict(compare_depth(reference_m, reference_m, 16, stats=("min", "max")))
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain["stats"]) == {"min", "max"}


@pytest.mark.parametrize("kind", [DepthKind.INVERSE_RELATIVE, DepthKind.INVERSE_CANONICAL])
def test_differences_of_inverse_depth_are_relative_to_the_range_of_the_map(kind: DepthKind) -> None:
    rows = np.linspace(0, 100, 32 * 48, dtype=np.float32).reshape(1, 32, 48)
    reference = np.concatenate([rows, rows / 10])  # the second has a tenth of the range
    spans = [float(np.subtract(*np.percentile(one, (99, 1)))) for one in reference]
    candidate = reference + np.array([[[0.5]], [[0.2]]], np.float32)
    report = compare_depth(candidate, reference, 16, kind=kind)
    assert report.max_rel == pytest.approx(0.2 / spans[1], rel=1e-5)
    assert report.mean_rel == pytest.approx((0.5 / spans[0] + 0.2 / spans[1]) / 2, rel=1e-5)
    assert report.reference_range == pytest.approx(spans[1])
    assert "|Δ|/range max" in str(report)
    merged = merge_reports([compare_depth(candidate[i : i + 1], reference[i : i + 1], 16, kind=kind) for i in (0, 1)])
    assert merged == dataclasses.replace(report, mean_rel=pytest.approx(report.mean_rel))
    assert compare_depth(candidate, reference, 16).max_rel > 1e4  # relative to depth: the first pixels are 0
    with pytest.raises(ParityError, match=r"max \|Δ\|/range is"):
        check(report, 1e-4)


def test_a_flat_or_empty_inverse_map_has_a_range_to_compare_with() -> None:
    flat = np.full((1, 16, 16), 50, np.float32)
    report = compare_depth(flat + np.float32(1e-3), flat, 16, kind=DepthKind.INVERSE_RELATIVE)
    assert report.reference_range == pytest.approx(50 * MIN_RANGE_SHARE)
    assert report.max_rel == pytest.approx(1e-3 / 0.5, rel=1e-2)
    zeros = np.zeros((1, 16, 16), np.float32)
    assert compare_depth(zeros, zeros, 16, kind=DepthKind.INVERSE_RELATIVE).max_rel == 0
    broken = np.full((1, 16, 16), np.nan, np.float32)
    assert compare_depth(broken, broken, 16, kind=DepthKind.INVERSE_RELATIVE).max_rel == np.inf
