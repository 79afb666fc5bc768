"""Measures over time, of clips whose flicker is known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.errors import UsageError
from mvde.steadiness import (
    excess_after_cut,
    frame_abs_rel,
    log_errors,
    point_flicker,
    point_pairs,
    scale_flicker,
    step_residual,
)

NO_CUT = np.zeros(6, bool)
STILL = np.tile(np.eye(3, 4), (6, 1, 1))
CAMERA = np.tile(np.array([20.0, 20.0, 7.5, 5.5], np.float32), (6, 1))


def slope(num_frames: int = 6) -> np.ndarray:
    """A plane (T, 12, 16) from 1 to 2 m that stands still."""
    return np.tile(np.linspace(1.0, 2.0, 16, dtype=np.float32), (num_frames, 12, 1))


def test_a_constant_error_does_not_flicker() -> None:
    truth = slope()
    pred = truth * np.float32(1.3)
    pairs = point_pairs(truth, CAMERA, STILL, NO_CUT)
    assert scale_flicker(pred, truth, NO_CUT) == pytest.approx(0.0, abs=1e-6)
    assert point_flicker(pred, truth, pairs) == pytest.approx((0.0, 0.0), abs=1e-6)
    np.testing.assert_allclose(frame_abs_rel(pred, truth), 0.3, rtol=1e-5)


def test_a_scale_that_alternates_flickers_by_its_step() -> None:
    truth = slope()
    pred = truth * np.exp(np.float32([0.1, -0.1, 0.1, -0.1, 0.1, -0.1]))[:, None, None]
    assert scale_flicker(pred, truth, NO_CUT) == pytest.approx(0.2, rel=1e-4)
    found = point_flicker(pred, truth, point_pairs(truth, CAMERA, STILL, NO_CUT))
    assert found == pytest.approx((0.2, 0.2), rel=1e-4)


def test_the_root_mean_square_weighs_one_large_step() -> None:
    truth = slope()
    pred = truth * np.exp(np.float32([0, 0, 0.3, 0.3, 0.3, 0.3]))[:, None, None]
    assert scale_flicker(pred, truth, NO_CUT) == pytest.approx(0.3 / np.sqrt(5), rel=1e-4)
    found = point_flicker(pred, truth, point_pairs(truth, CAMERA, STILL, NO_CUT))
    assert found == pytest.approx((0.3 / 5, 0.3 / np.sqrt(5)), rel=1e-4)


def test_noise_that_keeps_the_median_is_flicker_of_points_alone() -> None:
    truth = np.ones((6, 12, 16), np.float32)
    pred = truth.copy()
    pred[1::2, :4], pred[1::2, 8:] = np.exp(0.2), np.exp(-0.2)  # a third each way, a third at rest
    assert scale_flicker(pred, truth, NO_CUT) == pytest.approx(0.0, abs=1e-6)
    found = point_flicker(pred, truth, point_pairs(truth, CAMERA, STILL, NO_CUT))
    assert found == pytest.approx((0.2 * 2 / 3, 0.2 * np.sqrt(2 / 3)), rel=1e-4)


def test_no_pair_goes_across_a_cut() -> None:
    truth, cut = slope(), np.array([False, False, False, True, False, False])
    pred = truth.copy()
    pred[3:] *= np.float32(1.5)
    pairs = point_pairs(truth, CAMERA, STILL, cut)
    assert [pair is None for pair in pairs] == [True, False, False, True, False, False]
    assert scale_flicker(pred, truth, cut) == pytest.approx(0.0, abs=1e-6)
    assert point_flicker(pred, truth, pairs).rms == pytest.approx(0.0, abs=1e-6)


def test_points_follow_the_poses_and_not_the_pixels() -> None:
    """A camera that moves along a wall sees each of its points elsewhere; errors that stick to the wall are steady."""
    fx, distance, step = 20.0, 2.0, 0.1  # one pixel a frame
    poses = np.tile(np.eye(3, 4), (6, 1, 1))
    poses[:, 0, 3] = step * np.arange(6)
    truth = np.full((6, 12, 16), distance, np.float32)
    wall = np.exp(0.1 * np.sin(np.arange(24))).astype(np.float32)  # an error for each column of the wall
    sticks = np.stack([truth[t] * wall[t : t + 16] for t in range(6)])
    pairs = point_pairs(truth, CAMERA, poses, NO_CUT)
    for pair in pairs[1:]:
        assert pair is not None
        np.testing.assert_array_equal(pair.before - pair.now, 1)
    assert point_flicker(sticks, truth, pairs).rms == pytest.approx(0.0, abs=1e-6)
    glued_to_the_camera = np.stack([truth[t] * wall[:16] for t in range(6)])
    assert point_flicker(glued_to_the_camera, truth, pairs).mean > 0.05
    assert fx * step / distance == pytest.approx(1.0)


def test_a_camera_that_goes_ahead_pairs_points_by_their_own_distance() -> None:
    poses = np.tile(np.eye(3, 4), (6, 1, 1))
    poses[:, 2, 3] = 0.1 * np.arange(6)
    truth = np.stack([np.full((12, 16), 3.0 - 0.1 * t, np.float32) for t in range(6)])
    pairs = point_pairs(truth, CAMERA, poses, NO_CUT, step=1)
    assert all(pair is not None and len(pair.now) == 12 * 16 for pair in pairs[1:])


def test_what_moves_or_is_hidden_is_no_pair() -> None:
    truth = slope()
    truth[3:, 4:8, 4:8] = 0.5  # a thing that appears
    pairs = point_pairs(truth, CAMERA, STILL, NO_CUT, step=1)
    sizes = [0 if pair is None else len(pair.now) for pair in pairs]
    assert sizes == [0, 192, 192, 192 - 16, 192, 192]


def test_pixels_without_truth_or_prediction_do_not_count() -> None:
    truth, pred = slope(), slope() * np.float32(1.1)
    truth[:, 0], pred[:, 1], pred[:, 2], pred[:, 3] = 0, np.nan, 0, np.inf
    errors = log_errors(pred, truth)
    assert np.isnan(errors[:, :4]).all()
    np.testing.assert_allclose(errors[:, 4:], np.log(1.1), rtol=1e-5)
    np.testing.assert_allclose(frame_abs_rel(pred, truth), 0.1, rtol=1e-5)


def test_the_excess_after_a_cut_is_that_of_its_frames_alone() -> None:
    truth, cut = slope(), np.array([False, False, True, False, False, False])
    plain, lagging = truth * np.float32(1.1), truth * np.float32(1.1)
    lagging[0] *= np.float32(2.0)  # before the cut: not counted
    lagging[2] = truth[2] * np.float32(1.4)
    assert excess_after_cut(lagging, plain, truth, cut, 3) == pytest.approx(0.1, rel=1e-4)
    assert np.isnan(excess_after_cut(lagging, plain, truth, NO_CUT))


def test_the_residual_of_a_step_is_the_share_that_is_left() -> None:
    truth = np.full((8, 12, 16), 2.0, np.float32)
    truth[3:, :, 8:] = 1.0
    plain, cut = truth.copy(), np.zeros(8, bool)
    smooth = truth.copy()
    for lag, left in enumerate((0.6, 0.36, 0.2)):
        smooth[3 + lag, :, 8:] = np.exp(left * np.log(2.0))
    for lag, left in enumerate((0.6, 0.36, 0.2)):
        assert step_residual(smooth, plain, truth, cut, lag) == pytest.approx(left, rel=1e-4)
    assert step_residual(plain, plain, truth, cut) == 0
    assert np.isnan(step_residual(slope(8), slope(8), slope(8), cut))
    cut[3] = True
    assert np.isnan(step_residual(smooth, plain, truth, cut))


def test_shapes_that_differ_and_a_clip_of_one_frame() -> None:
    with pytest.raises(UsageError, match=r"shape \(6, 12, 16\) and the truth \(5, 12, 16\)"):
        scale_flicker(slope(), slope(5), NO_CUT)
    with pytest.raises(UsageError, match="is_cut has 6 values for 1 frames"):
        scale_flicker(slope(1), slope(1), NO_CUT)
    one = np.zeros(1, bool)
    assert scale_flicker(slope(1), slope(1), one) == 0
    pairs = point_pairs(slope(1), CAMERA, STILL, one)
    assert pairs == [None]
    assert point_flicker(slope(1), slope(1), pairs) == (0, 0)
