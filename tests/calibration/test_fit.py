"""Scale and shift from reference points, on synthetic maps whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.calibration.fit import MAX_FRAME_POINTS, FramePoints, fit
from mvde.calibration.solve import apply, solve
from mvde.contract import DepthKind
from mvde.errors import CalibrationError

ONE_SCALE = [DepthKind.METRIC, DepthKind.METRIC_FOCAL, DepthKind.SCALE_INVARIANT]
SCALE, SHIFT = 0.8, 0.05


def map_of(kind: DepthKind, depth_m: np.ndarray, scale: float = SCALE, shift: float = SHIFT) -> np.ndarray:
    """Map whose calibration is ``scale``, and ``shift`` for the kind that has one."""
    if kind is DepthKind.INVERSE_RELATIVE:
        return (1 / depth_m - shift) / scale
    return 1 / (scale * depth_m) if kind.is_inverse else depth_m / scale


def frames_of(kind: DepthKind, num_frames: int = 6, num_points: int = 8, noise: float = 0.0) -> list[FramePoints]:
    random = np.random.default_rng(3)
    frames = []
    for number in range(num_frames):
        depth_m = random.uniform(0.5, 6, num_points)
        values = map_of(kind, depth_m * (1 + noise * random.standard_normal(num_points)))
        frames.append(FramePoints(f"{number}.jpg", values, depth_m))
    return frames


@pytest.mark.parametrize("kind", DepthKind)
def test_the_scale_and_shift_of_a_map_are_found(kind: DepthKind) -> None:
    found = fit(kind, frames_of(kind))
    assert found.scale == pytest.approx(SCALE, rel=1e-9)
    assert found.shift == pytest.approx(SHIFT if kind is DepthKind.INVERSE_RELATIVE else 0, abs=1e-9)
    assert (found.num_points, found.num_frames) == (48, 6)
    assert found.held_out_abs_rel < 1e-9
    assert found.spread < 1e-9
    assert 0.5 < found.distance_m[0] < 1 < 5 < found.distance_m[1] < 6


@pytest.mark.parametrize("kind", DepthKind)
def test_a_wrong_point_in_ten_hardly_moves_the_fit(kind: DepthKind) -> None:
    frames = frames_of(kind, num_frames=10, num_points=10, noise=0.01)
    for one in frames:
        one.depth_m[4] *= 1.5  # read off the tape at the wrong mark
    found = fit(kind, frames)
    depth_m = np.linspace(0.5, 6, 50)
    np.testing.assert_allclose(apply(kind, found.scale, found.shift, map_of(kind, depth_m)), depth_m, rtol=0.03)


def test_the_fit_is_that_of_weighted_least_squares_where_errors_are_small() -> None:
    kind = DepthKind.INVERSE_RELATIVE
    one = frames_of(kind, 1, 50, noise=0.004)[0]
    columns = np.stack([one.values * one.depth_m, one.depth_m], axis=1)
    expected, *_ = np.linalg.lstsq(columns, np.ones(50), rcond=None)
    assert solve(kind, one.values, one.depth_m) == pytest.approx(tuple(expected), rel=1e-9)


def test_the_held_out_error_and_the_spread_are_those_that_were_put_in() -> None:
    kind, random = DepthKind.SCALE_INVARIANT, np.random.default_rng(5)
    factors = np.exp(0.1 * random.standard_normal(40))
    frames = []
    for number, factor in enumerate(factors):
        depth_m = random.uniform(1, 5, 20)
        frames.append(FramePoints(str(number), factor * depth_m, depth_m))
    found = fit(kind, frames)
    assert found.spread == pytest.approx(np.std(np.log(factors), ddof=1), rel=0.05)
    assert found.held_out_abs_rel == pytest.approx(np.median(np.abs(factors / np.median(factors) - 1)), rel=0.1)


def test_frames_of_a_depth_camera_count_no_more_than_others() -> None:
    depth_m = np.linspace(1, 5, 50_000)
    found = fit(DepthKind.METRIC, [FramePoints("dense", depth_m / 2, depth_m)])
    assert found.num_points == MAX_FRAME_POINTS
    assert found.distance_m == pytest.approx((1, 5))
    assert found.scale == 2


def test_points_without_a_value_are_left_out() -> None:
    frames = frames_of(DepthKind.METRIC, 1, 8)
    frames[0].values[:3] = [np.nan, 0, np.inf]
    assert fit(DepthKind.METRIC, frames).num_points == 5
    frames[0].values[3] = -1
    with pytest.raises(CalibrationError, match="at least 5 points where the network has a value, but got 4"):
        fit(DepthKind.METRIC, frames)


@pytest.mark.parametrize("kind", [DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE])
def test_relative_kinds_need_five_frames(kind: DepthKind) -> None:
    with pytest.raises(CalibrationError, match="at least 5 frames with points, but got 4; take more, or give anchors"):
        fit(kind, frames_of(kind, 4))
    assert fit(kind, frames_of(kind, 5)).num_frames == 5


@pytest.mark.parametrize("kind", DepthKind)
def test_points_at_one_distance_are_refused(kind: DepthKind) -> None:
    depth_m = np.array([2.0, 2.0, 2.1, 2.2, 2.9])
    frames = [FramePoints(str(number), map_of(kind, depth_m), depth_m) for number in range(5)]
    with pytest.raises(CalibrationError, match=r"between 2 and 2\.9 m.*1\.5 times the distance of the nearest"):
        fit(kind, frames)


def test_no_points_are_refused() -> None:
    with pytest.raises(CalibrationError, match="at least 5 points where the network has a value, but got 0"):
        fit(DepthKind.METRIC, [])


@pytest.mark.parametrize("kind", ONE_SCALE)
def test_a_map_that_one_scale_does_not_fit_is_refused_for_its_trend(kind: DepthKind) -> None:
    frames = frames_of(kind)
    shifted = [FramePoints(one.name, one.values + 0.4, one.depth_m) for one in frames]
    with pytest.raises(CalibrationError, match=r"the relative error changes by -.*% from 0\.\d+ m to 5\.\d+ m"):
        fit(kind, shifted)


def test_an_error_that_grows_both_ways_over_distance_is_refused() -> None:
    random = np.random.default_rng(1)
    depth_m = np.linspace(1, 8, 200)
    signs = random.choice([-1, 1], 200)
    values = depth_m * (1 + signs * 0.03 * depth_m)
    with pytest.raises(CalibrationError, match="the relative error changes by"):
        fit(DepthKind.METRIC, [FramePoints("a", values, depth_m)])


def test_depth_instead_of_inverse_depth_is_refused() -> None:
    frames = [FramePoints(one.name, one.depth_m, one.depth_m) for one in frames_of(DepthKind.METRIC)]
    with pytest.raises(
        CalibrationError, match="the points contradict the map: it does not grow where they come nearer"
    ):
        fit(DepthKind.INVERSE_RELATIVE, frames)


def test_a_map_of_one_value_is_refused() -> None:
    depth_m = np.array([1.0, 2, 3, 4, 5])
    frames = [FramePoints(str(number), np.full(5, 0.25), depth_m) for number in range(5)]
    with pytest.raises(CalibrationError, match="the map has the same value at all points"):
        fit(DepthKind.INVERSE_RELATIVE, frames)


def test_points_that_leave_scale_and_shift_open_are_refused() -> None:
    kind, depth_m = DepthKind.INVERSE_RELATIVE, np.array([1, 1.01, 1.3, 1.68, 1.7])
    values = map_of(kind, depth_m, shift=-0.4) * np.array([1.07, 0.93, 1.07, 0.93, 1.07])
    frames = [
        FramePoints(str(number), values[number : number + 1], depth_m[number : number + 1]) for number in range(5)
    ]
    with pytest.raises(CalibrationError, match=r"do not determine scale and shift: depth at one of them is uncertain"):
        fit(kind, frames)


def test_a_single_frame_at_another_distance_is_refused() -> None:
    kind, depth_m = DepthKind.INVERSE_RELATIVE, np.array([2.0, 2.1, 2.2])
    frames = [FramePoints(str(number), map_of(kind, depth_m), depth_m) for number in range(5)]
    frames.append(FramePoints("far", map_of(kind, depth_m + 2), depth_m + 2))
    with pytest.raises(CalibrationError, match="a fifth of the frames decides alone; without it, scale and shift need"):
        fit(kind, frames)


@pytest.mark.parametrize("kind", [DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE])
def test_frames_that_do_not_share_a_scale_are_refused(kind: DepthKind) -> None:
    factors = [0.5, 0.8, 1.0, 1.6, 2.4, 3.0]
    frames = [
        FramePoints(one.name, one.values * factor, one.depth_m)
        for one, factor in zip(frames_of(kind), factors, strict=True)
    ]
    with pytest.raises(CalibrationError, match=r"(AbsRel|frames) is \d+%, above 15%.*give anchors in every frame"):
        fit(kind, frames)


def test_a_metric_map_may_differ_between_frames() -> None:
    frames = [
        FramePoints(one.name, one.values * factor, one.depth_m)
        for one, factor in zip(frames_of(DepthKind.METRIC), [0.7, 0.8, 1.0, 1.0, 1.3, 1.4], strict=True)
    ]
    assert fit(DepthKind.METRIC, frames).spread > 0.15


@pytest.mark.parametrize(("kind", "num_points"), [(DepthKind.METRIC, 0), (DepthKind.INVERSE_RELATIVE, 1)])
def test_a_frame_with_too_few_anchors_is_refused(kind: DepthKind, num_points: int) -> None:
    points = np.ones(num_points)
    with pytest.raises(CalibrationError, match=f"needs {num_points + 1} points or more where it has a value, but got"):
        solve(kind, points, points)


def test_depth_is_infinite_where_the_shift_leaves_nothing() -> None:
    depth = apply(DepthKind.INVERSE_RELATIVE, 1.0, -0.5, np.array([1.0, 0.5, 0.2]))
    np.testing.assert_array_equal(depth, [2, np.inf, np.inf])
