"""Steady depth: exact arithmetic, the motion of pictures, and what holds of every stream."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.runtime.exact_math import exact_exp, exact_log
from mvde.runtime.picture_motion import Motion, bilinear, compare, estimate_motion, moved_grid, resampled, thumbnail
from mvde.runtime.stabilize import Stabilization, Stabilizer
from mvde.runtime.steady_scale import robust_line

HEIGHT, WIDTH = 72, 96


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth random picture (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    total = np.zeros((height, width))
    for _ in range(12):
        a, b, phase = [*rng.normal(0, 0.12, 2).tolist(), rng.uniform(0, 6)]
        total += np.sin(a * x + b * y + phase)
    return np.repeat((128 + 18 * total).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def moved(image: np.ndarray, motion: Motion) -> np.ndarray:
    """The picture after a motion, made by SciPy."""
    ndimage = pytest.importorskip("scipy.ndimage")
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    rows = y + motion.down * height + motion.roll * x + motion.zoom * y + (height - 1) / 2
    columns = x + motion.across * width + motion.zoom * x - motion.roll * y + (width - 1) / 2
    plane = ndimage.map_coordinates(image[..., 0].astype(np.float64), [rows, columns], order=1, mode="nearest")
    return np.repeat(np.rint(plane).astype(np.uint8)[..., None], 3, axis=2)


def ramp() -> np.ndarray:
    """Depth (H, W) from 1 to 3 m."""
    return np.broadcast_to(np.linspace(1, 3, WIDTH, dtype=np.float32), (HEIGHT, WIDTH)).copy()


# --- arithmetic --------------------------------------------------------------------------------------------------


def test_logarithm_and_exponential_are_those_of_the_standard_library_to_a_float() -> None:
    values = np.exp(np.random.default_rng(1).uniform(-60, 60, 4000)).astype(np.float32)
    expected = np.array([math.log(float(value)) for value in values])
    np.testing.assert_allclose(exact_log(values), expected, rtol=1.2e-7, atol=1.2e-7)
    logs = expected.astype(np.float32)
    np.testing.assert_allclose(exact_exp(logs), [math.exp(float(one)) for one in logs], rtol=2e-7)
    assert np.isnan(exact_log(np.float32([0, -1, np.inf, np.nan]))).all()
    assert np.isnan(exact_exp(np.float32([np.nan]))).all()
    assert exact_log(np.float32([1.0]))[0] == 0
    assert exact_exp(np.float32([0.0]))[0] == 1


# --- motion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "motion",
    [
        Motion(0.0, 0.0, 0.0, 0.0),
        Motion(0.03, -0.02, 0.0, 0.0),
        Motion(0.0, 0.0, -0.03, 0.0),
        Motion(0.0, 0.0, 0.0, 0.04),
        Motion(0.05, 0.02, 0.02, -0.02),
    ],
)
def test_the_motion_of_a_picture_is_found_whatever_its_exposure(motion: Motion) -> None:
    before = picture()
    now = (moved(before, motion) * 0.7).astype(np.uint8)
    found = estimate_motion(thumbnail(before), thumbnail(now), HEIGHT / WIDTH)
    for name in ("across", "down", "zoom", "roll"):
        assert getattr(found, name) == pytest.approx(getattr(motion, name), abs=0.004), name
    change = compare(thumbnail(before), thumbnail(now), found, HEIGHT / WIDTH)
    assert change.residual < 0.06


def test_a_thing_that_moves_by_itself_does_not_move_the_picture() -> None:
    before, now = picture(), picture()
    before[20:50, 10:30], now[20:50, 18:38] = 10, 10
    found = estimate_motion(thumbnail(before), thumbnail(now), HEIGHT / WIDTH)
    assert max(abs(found.across), abs(found.down), abs(found.zoom), abs(found.roll)) < 0.004


def test_a_bare_wall_has_no_motion() -> None:
    wall = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    found = estimate_motion(thumbnail(wall), thumbnail(wall), HEIGHT / WIDTH)
    assert found.largest_shift(HEIGHT, WIDTH) == 0


def test_the_grid_of_a_motion_is_that_of_its_formula() -> None:
    motion = Motion(0.1, -0.05, 0.02, 0.03)
    rows, columns = moved_grid(HEIGHT, WIDTH, motion, HEIGHT / WIDTH)
    x, y = 70 - (WIDTH - 1) / 2, 15 - (HEIGHT - 1) / 2
    expected_column = 70 + 0.1 * WIDTH + 0.02 * x - 0.03 * y
    expected_row = 15 - 0.05 * HEIGHT + 0.03 * x + 0.02 * y
    assert columns[15, 70] == pytest.approx(expected_column, abs=1e-4)
    assert rows[15, 70] == pytest.approx(expected_row, abs=1e-4)
    assert bilinear(columns, rows[15:16, 70:71], columns[15:16, 70:71]).shape == (1, 1)


def test_pictures_smaller_than_a_thumbnail_have_one() -> None:
    assert thumbnail(picture(height=20, width=30)).shape == (48, 48)
    assert np.isfinite(thumbnail(np.zeros((1, 1, 3), np.uint8))).all()


# --- streams -----------------------------------------------------------------------------------------------------


def test_the_first_frame_is_the_networks_own_bit_for_bit() -> None:
    stabilizer, depth = Stabilizer(DepthKind.METRIC), ramp()
    np.testing.assert_array_equal(stabilizer.update(picture(), depth), depth)
    assert stabilizer.num_frames == 1


@pytest.mark.parametrize("kind", list(DepthKind))
def test_a_map_that_does_not_change_is_returned(kind: DepthKind) -> None:
    stabilizer = Stabilizer(kind)
    for _ in range(6):
        steady = stabilizer.update(picture(), ramp())
    np.testing.assert_allclose(steady, ramp(), rtol=1e-5)
    assert stabilizer.num_frames == 6


def test_a_scale_that_flickers_is_steadied_and_its_mean_kept() -> None:
    scales = np.exp(np.random.default_rng(3).normal(0, 0.05, 60)).astype(np.float32)
    stabilizer = Stabilizer(DepthKind.METRIC)
    found = [np.log(np.median(stabilizer.update(picture(), ramp() * scale) / ramp())) for scale in scales]
    assert np.std(np.diff(found[10:])) < 0.2 * np.std(np.diff(np.log(scales[10:])))
    assert abs(np.mean(found[10:]) - np.mean(np.log(scales))) < 0.02


def test_a_bad_first_frame_is_soon_outvoted() -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    stabilizer.update(picture(), ramp() * np.float32(1.12))
    for _ in range(8):
        steady = stabilizer.update(picture(), ramp())
    assert abs(np.median(steady / ramp()) - 1) < 0.02


def test_a_true_change_of_a_patch_passes_at_once() -> None:
    stabilizer, depth = Stabilizer(DepthKind.METRIC), ramp()
    for _ in range(10):
        stabilizer.update(picture(), depth)
    depth[20:40, 20:40] = 0.6
    steady = stabilizer.update(picture(), depth)
    np.testing.assert_allclose(steady[20:40, 20:40], 0.6, rtol=1e-4)
    np.testing.assert_allclose(steady[50:], ramp()[50:], rtol=1e-4)


def test_an_edge_that_trembles_by_a_pixel_is_averaged_and_one_that_moves_further_passes_at_once() -> None:
    left = {}
    for step in (1, 4):
        stabilizer, stairs = Stabilizer(DepthKind.METRIC), []
        for frame in range(10):
            depth = np.full((HEIGHT, WIDTH), 3.0, np.float32)
            depth[:, : 40 + step * (frame % 2)] = 1.0
            depth[41, 39 + step] = np.nan  # neighbours of a hole are compared with what is known
            stairs.append(stabilizer.update(picture(), depth))
        left[step] = np.abs(np.diff(np.log(stairs[-2:]), axis=0))[0, ::8, 40 + step // 2]
    assert (left[1] < 0.3 * math.log(3)).all()
    assert left[4] == pytest.approx(math.log(3), rel=1e-3)


def test_a_camera_that_goes_ahead_does_not_lag() -> None:
    """Each frame the picture grows by 1 % about the middle and all depth shrinks by as much."""
    zoom, first = -0.01, picture(height=96, width=96)
    lags = {}
    for follows in (True, False):
        stabilizer = Stabilizer(DepthKind.METRIC)
        for frame in range(16):
            image = moved(first, Motion(0.0, 0.0, (1 + zoom) ** frame - 1, 0.0)) if follows else first
            depth = np.full((96, 96), 3.0 * (1 + zoom) ** frame, np.float32)
            steady = stabilizer.update(image, depth)
        lags[follows] = abs(float(np.log(np.median(steady) / depth[0, 0])))
    assert lags[True] < 0.01
    assert lags[False] > 0.05  # what it would be without the zoom


def test_edges_follow_a_picture_that_shifts() -> None:
    shift, stabilizer = 2 / WIDTH, Stabilizer(DepthKind.METRIC)
    for frame in range(6):
        motion = Motion(frame * shift, 0.0, 0.0, 0.0)
        depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
        depth[:, : 60 - 2 * frame] = 1.9  # too small a step for a pixel to open
        steady = stabilizer.update(moved(picture(), motion), depth)
    assert np.abs(np.log(steady / depth)).max() < 0.03  # the edge is warped, by fractions of a pixel that are wrong
    assert np.abs(np.log(steady / depth)).mean() < 0.002


def test_a_cut_begins_anew() -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    for _ in range(5):
        stabilizer.update(picture(0), ramp())
    other = ramp()[:, ::-1] * np.float32(1.3)
    np.testing.assert_array_equal(stabilizer.update(picture(9), np.ascontiguousarray(other)), other)
    assert stabilizer.num_frames == 1


def test_a_cut_between_dull_pictures_is_found_and_the_noise_of_a_bare_wall_is_none() -> None:
    rng = np.random.default_rng(0)
    stabilizer = Stabilizer(DepthKind.METRIC)
    for _ in range(5):
        stabilizer.update(
            np.rint(120 + rng.normal(0, 3, (192, 192, 3))).astype(np.uint8), np.ones((48, 48), np.float32)
        )
    assert stabilizer.num_frames == 5
    for seed, expected in ((0, 1), (0, 2), (9, 1), (9, 2)):
        dull = (picture(seed) // 4 + 90).astype(np.uint8)
        stabilizer.update(dull, ramp())
        assert stabilizer.num_frames == expected


def test_shift_and_scale_of_a_relative_inverse_map_are_both_steadied() -> None:
    rng = np.random.default_rng(5)
    inverse = 10 / np.broadcast_to(ramp(), (HEIGHT, WIDTH)) + 2
    stabilizer, raw, steady = Stabilizer(DepthKind.INVERSE_RELATIVE), [], []
    for _ in range(50):
        frame = (inverse * np.exp(rng.normal(0, 0.04)) + rng.normal(0, 0.3)).astype(np.float32)
        raw.append(frame[36, ::8])
        steady.append(stabilizer.update(picture(), frame)[36, ::8])
    flicker = [np.abs(np.diff(np.stack(one)[10:], axis=0)).mean() for one in (raw, steady)]
    assert flicker[1] < 0.2 * flicker[0]


def test_a_robust_line_ignores_what_moved() -> None:
    x = np.linspace(0, 3, 144)
    y = 1.2 * x - 0.4
    y[::5] += 2.0
    assert robust_line(x, y) == pytest.approx((1.2, -0.4), abs=0.02)
    assert robust_line(np.ones(20), np.full(20, 1.5)) == pytest.approx((1.0, 0.5))


def test_pixels_without_a_value_stay_as_they_are_and_do_not_spread() -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    holes = ramp()
    holes[10:20, 10:20], holes[30:40, 30:40], holes[50, 50] = np.nan, 0.0, np.inf
    stabilizer.update(picture(), holes)
    steady = stabilizer.update(picture(), ramp())
    np.testing.assert_allclose(steady, ramp(), rtol=1e-5)
    again = stabilizer.update(picture(), holes)
    np.testing.assert_array_equal(np.isnan(again), np.isnan(holes))
    np.testing.assert_array_equal(again[30:40, 30:40], 0.0)
    assert np.isinf(again[50, 50])


@given(
    st.integers(0, 2**31 - 1),
    st.floats(0.25, 4.0),
    st.sampled_from([DepthKind.METRIC, DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_CANONICAL]),
)
@settings(max_examples=10, deadline=None)
def test_steady_depth_lies_between_the_frames_and_scales_with_them(seed: int, unit: float, kind: DepthKind) -> None:
    rng = np.random.default_rng(seed)
    frames = [np.exp(rng.normal(0, 0.2, (24, 32))).astype(np.float32) for _ in range(3)]
    image = picture(seed % 7, 48, 64)
    plain, scaled = Stabilizer(kind), Stabilizer(kind)
    for frame in frames:
        one, other = plain.update(image, frame), scaled.update(image, frame * np.float32(unit))
    np.testing.assert_allclose(other, one * unit, rtol=1e-4)
    wide = math.exp(0.5)  # beyond the frames by no more than one change of scale
    assert (one >= np.min(frames, axis=0) / wide).all()
    assert (one <= np.max(frames, axis=0) * wide).all()


def test_equal_streams_give_equal_bits() -> None:
    rng = np.random.default_rng(0)
    frames = [(picture(0), (ramp() * np.exp(rng.normal(0, 0.1))).astype(np.float32)) for _ in range(4)]
    runs = []
    for _ in range(2):
        stabilizer = Stabilizer(DepthKind.METRIC)
        runs.append([stabilizer.update(image, depth) for image, depth in frames])
    np.testing.assert_array_equal(*runs)


# --- bad input ---------------------------------------------------------------------------------------------------


def test_another_size_or_camera_begins_anew() -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    for view, size, expected in (("a", 48, 1), ("a", 48, 2), ("b", 48, 1), ("b", 48, 2), ("b", 40, 1)):
        depth = np.full((size, 64), 2.0 if view == "a" else 3.0, np.float32)
        np.testing.assert_allclose(stabilizer.update(picture(0, size, 64), depth, view=view), depth, rtol=1e-6)
        assert stabilizer.num_frames == expected


def test_the_past_goes_on_where_the_map_has_another_resolution() -> None:
    """An engine of another resolution whose scale is 8 % off: the scale is held across the switch."""
    stabilizer = Stabilizer(DepthKind.METRIC)
    for number, (height, width) in enumerate([(72, 96)] * 12 + [(36, 48), (108, 144), (72, 96)]):
        scale = np.float32(1.08 if height != 72 else 1.0)
        depth = np.broadcast_to(np.linspace(1, 3, width, dtype=np.float32), (height, width)) * scale
        image = picture().repeat(height // 36, axis=0).repeat(height // 36, axis=1)
        steady = stabilizer.update(image, np.ascontiguousarray(depth))
        assert stabilizer.num_frames == number + 1
        assert abs(np.log(np.median(steady) / np.median(ramp()))) < 0.03
        assert steady.shape == (height, width)
    other = np.ones((36, 48), np.float32)
    np.testing.assert_array_equal(stabilizer.update(picture(9), other), other)  # a cut at a switch begins anew


def test_a_map_at_another_resolution_keeps_its_plane_and_its_holes() -> None:
    rows, columns = np.mgrid[0:40, 0:60].astype(np.float32) + np.float32(0.5)
    plane = rows / 40 + 2 * columns / 60
    for height, width in ((20, 30), (80, 90), (40, 60)):
        found = resampled(plane, (height, width))
        y, x = (np.mgrid[0:height, 0:width] + 0.5) / np.array([height, width])[:, None, None]
        inner = np.s_[1:-1, 1:-1] if height > 20 else np.s_[:]
        np.testing.assert_allclose(found[inner], (y + 2 * x)[inner], atol=1e-5)
    plane[10, 10] = np.nan
    holes = np.isnan(resampled(plane, (20, 30)))
    assert holes[5, 5]
    assert holes.sum() < 5


def test_a_map_of_one_row_is_returned() -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    for value in (1.0, 1.1):
        depth = np.full((1, 40), value, np.float32)
        np.testing.assert_array_equal(stabilizer.update(picture(0, 4, 40), depth), depth)


@pytest.mark.parametrize("time_s", [2.0, 1.5])
def test_frames_out_of_order_or_with_equal_stamps_are_refused_with_the_way_out(time_s: float) -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    stabilizer.update(picture(), ramp(), time_s=2.0)
    with pytest.raises(UsageError, match=r"comes after the one at 2.000000 s; give each frame once, in the order"):
        stabilizer.update(picture(), ramp(), time_s=time_s)
    with pytest.raises(UsageError, match="has the time nan; expected seconds"):
        stabilizer.update(picture(), ramp(), time_s=math.nan)
    stabilizer.reset()
    stabilizer.update(picture(), ramp(), time_s=0.5)
    assert stabilizer.num_frames == 1


def test_a_long_gap_begins_anew_and_a_short_one_does_not() -> None:
    stabilizer = Stabilizer(DepthKind.METRIC)
    for time_s, expected in ((0.0, 1), (0.1, 2), (1.0, 3), (2.5, 1)):
        stabilizer.update(picture(), ramp(), time_s=time_s)
        assert stabilizer.num_frames == expected


@pytest.mark.parametrize(
    ("image", "depth", "said"),
    [
        (picture()[..., 0], ramp(), r"picture of \(72, 96\) uint8; expected RGB"),
        (picture().astype(np.float32), ramp(), "float32; expected RGB"),
        (picture(), ramp().astype(np.float64), r"map of \(72, 96\) float64; expected one \(H, W\), float32"),
        (picture(), ramp()[None], r"map of \(1, 72, 96\)"),
        ([1], ramp(), "picture of list"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, depth: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Stabilizer(DepthKind.METRIC).update(image, depth)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gain": 0.0}, "gain is a share"),
        ({"scale_gain": 1.5}, "scale_gain is a share"),
        ({"open": 0.4}, "the smaller one first"),
        ({"full": math.nan}, "expected a number"),
        ({"max_gap_s": 0.0}, "expected more than 0 seconds"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dataclasses.replace(Stabilization(), **change)
