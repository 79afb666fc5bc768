"""Scan: bearings, ranges and heights against plain loops and scenes whose distances are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, reject, settings, strategies
from scipy.spatial.transform import Rotation

from mvde.camera import Camera
from mvde.errors import UsageError
from mvde.runtime.placement import Box
from mvde.runtime.scan import numpy_scan, scan_of
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import ScanTable, scan_table
from tests.runtime.scan_reference import level_rays, obstacles

MOST_OFF = 33 / 32
"""Largest width of a cell of the histogram, at the start of an octave; half of it is the error of its centre, the rest
the range over a sector's width."""
CAMERA = Camera.from_fov(57.0, None, (48, 64))
DEG = 1.8  # two columns of that camera
LEVEL = ScanSettings(0.6, increment_deg=DEG)


def rendered(camera: Camera, mounted: ScanSettings, *surfaces: tuple[np.ndarray, float]) -> np.ndarray:
    """Depth (H, W) of planes normal . p = offset, p from the camera in the level frame; +inf where there is none."""
    directions, depth = level_rays(camera, mounted), np.full(camera.size, np.inf)
    with np.errstate(divide="ignore"):
        for normal, offset in surfaces:
            metres = offset / (directions @ normal)
            depth = np.where((metres > 0) & (metres < depth), metres, depth)
    return depth.astype(np.float32)


def boxed(camera: Camera, mounted: ScanSettings, low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    """Depth (H, W) of a floor and of a box (x, y, height over the floor) from ``low`` to ``high``."""
    directions, origin = level_rays(camera, mounted), np.array([0, 0, mounted.height_m])
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = ((np.array(corner) - origin) / directions for corner in (low, high))
        enter, leave = np.fmin(near, far).max(-1), np.fmax(near, far).min(-1)
        floor = -mounted.height_m / directions[..., 2]
    depth = np.where(floor > 0, floor, np.inf)
    return np.where((enter > 0) & (enter < leave) & (enter < depth), enter, depth).astype(np.float32)


def sector_of(table: ScanTable, index: int) -> int:
    return math.floor((table.angle_min + index * table.angle_increment) / table.angle_increment)


mountings = strategies.builds(
    ScanSettings,
    height_m=strategies.floats(0.1, 1.5),
    pitch_deg=strategies.floats(-30, 40),
    roll_deg=strategies.floats(-180, 180),
    range_max_m=strategies.floats(2, 12),
    increment_deg=strategies.floats(4, 9),
    support_deg2=strategies.floats(1, 40),
)


@settings(max_examples=30, deadline=None)
@given(mountings, strategies.integers(0, 2**32 - 1), strategies.floats(0, 0.6))
def test_ranges_are_those_of_the_plain_loop_within_a_cell(mounted: ScanSettings, seed: int, holes: float) -> None:
    camera, rng = Camera(30.0, 26.0, 15.0, 12.5, (24, 32)), np.random.default_rng(seed)
    try:
        table = scan_table(camera, mounted)
    except UsageError:
        reject()  # looks past all obstacles, or the support is larger than a sector
    depth = rng.uniform(0.05, 8, camera.size).astype(np.float32)
    depth[rng.random(camera.size) < holes] = rng.choice([math.nan, 0.0, -1.0, math.inf])
    expected, ranges = obstacles(depth, camera, mounted), numpy_scan(depth, table)
    half = np.float32(1.02)  # half a cell, and the rounding of heights and ranges at their bounds
    for index, told in enumerate(ranges):
        found = expected.get(sector_of(table, index), [])
        if math.isfinite(told):
            k = table.support - 1
            near = [abs(math.log(told / one)) < math.log(half) for one in found[max(0, k - 1) : k + 2]]
            assert any(near), (index, told, found[: k + 2])
        else:
            assert len(found) <= table.support  # one more may lie on a bound of heights or sectors


def test_a_wall_ahead_is_told_at_its_distance_in_every_bearing() -> None:
    table = scan_table(CAMERA, LEVEL)
    scan = scan_of(numpy_scan(rendered(CAMERA, LEVEL, (np.array([1.0, 0, 0]), 2.0)), table), table)
    expected = 2 / np.cos(scan.bearings)
    assert np.isfinite(scan.ranges).all()
    assert np.abs(np.log(scan.ranges / expected)).max() < math.log(MOST_OFF)  # half a cell, and half a sector


def test_points_of_a_wall_lie_on_it() -> None:
    table = scan_table(CAMERA, LEVEL)
    scan = scan_of(numpy_scan(rendered(CAMERA, LEVEL, (np.array([1.0, 0, 0]), 2.0)), table), table)
    assert scan.points[:, 0] == pytest.approx(2.0, rel=MOST_OFF - 1)


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (25, 0), (-10, 0), (12, 7), (5, -90)])
def test_a_tilted_camera_tells_the_wall_where_the_level_one_does(pitch: float, roll: float) -> None:
    mounted = ScanSettings(0.6, pitch, roll, increment_deg=DEG)
    table = scan_table(CAMERA, mounted)
    wall = rendered(CAMERA, mounted, (np.array([1.0, 0, 0]), 2.0), (np.array([0, 0, 1.0]), -0.6))
    scan = scan_of(numpy_scan(wall, table), table)
    sees = scan.reach_m > 2.1 / np.cos(scan.bearings)
    assert sees.sum() > 5
    expected = 2 / np.cos(scan.bearings[sees])
    assert np.abs(np.log(scan.ranges[sees] / expected)).max() < math.log(MOST_OFF) + 0.01


def test_the_floor_is_free() -> None:
    table = scan_table(CAMERA, LEVEL)
    depth = rendered(CAMERA, LEVEL, (np.array([0, 0, 1.0]), -0.6))
    assert np.isposinf(numpy_scan(depth, table)).all()


def test_a_floor_that_a_fifth_nearer_depth_lifts_is_free_too() -> None:
    table = scan_table(CAMERA, LEVEL)
    depth = rendered(CAMERA, LEVEL, (np.array([0, 0, 1.0]), -0.6)) * np.float32(0.8)
    assert np.isposinf(numpy_scan(depth, table)).all()
    low = ScanSettings(0.6, min_height_m=0.05, increment_deg=DEG)
    assert np.isfinite(numpy_scan(depth, scan_table(CAMERA, low))).any()


def test_a_ramp_is_an_obstacle_where_it_rises_above_the_lowest_height() -> None:
    table = scan_table(CAMERA, LEVEL)
    slope = math.tan(math.radians(8))  # from the floor below the camera, upwards ahead
    depth = rendered(CAMERA, LEVEL, (np.array([-slope, 0, 1.0]), -0.6))
    ahead = np.abs(table.angle_min + np.arange(table.num_bearings) * table.angle_increment) < 0.05
    expected = LEVEL.lowest_m / slope
    assert numpy_scan(depth, table)[ahead] == pytest.approx(expected, rel=0.08)  # rows of pixels on the ramp are coarse


def test_a_post_stands_in_its_bearings_alone() -> None:
    table = scan_table(CAMERA, LEVEL)
    scan = scan_of(numpy_scan(boxed(CAMERA, LEVEL, (2.0, 0.3, 0.0), (2.1, 0.5, 1.5)), table), table)
    inside = (scan.bearings > math.atan2(0.3, 2) + 0.01) & (scan.bearings < math.atan2(0.5, 2) - 0.01)
    outside = (scan.bearings < math.atan2(0.3, 2.1) - 0.02) | (scan.bearings > math.atan2(0.5, 2) + 0.02)
    assert inside.sum() >= 2
    assert np.abs(np.log(scan.ranges[inside] * np.cos(scan.bearings[inside]) / 2)).max() < math.log(MOST_OFF)
    assert np.isposinf(scan.ranges[outside]).all()


def test_the_edge_of_a_table_is_told_and_not_its_far_legs() -> None:
    mounted = ScanSettings(1.1, 20, increment_deg=DEG)
    table = scan_table(CAMERA, mounted)
    scan = scan_of(numpy_scan(boxed(CAMERA, mounted, (1.2, -0.6, 0.70), (2.0, 0.6, 0.74)), table), table)
    ahead = np.abs(scan.bearings) < 0.2
    # Pixels on the slab's front and on its top near the edge: the support lies on their first rows.
    assert scan.ranges[ahead] * np.cos(scan.bearings[ahead]) == pytest.approx(1.2, rel=0.04)


def test_what_hangs_above_the_robot_is_free() -> None:
    table = scan_table(CAMERA, LEVEL)
    assert np.isposinf(numpy_scan(boxed(CAMERA, LEVEL, (2.0, -9.0, 1.65), (2.1, 9.0, 3.0)), table)).all()


def test_one_speckle_does_not_stop_the_robot_and_enough_of_them_do() -> None:
    table = scan_table(CAMERA, ScanSettings(0.6, support_deg2=5.0, increment_deg=DEG))
    sector = table.num_bearings // 2
    rows, columns = np.nonzero(table.bearing == sector)
    upper = np.flatnonzero(rows < CAMERA.size[0] // 2)
    assert len(upper) > table.support > 2
    for count, expected in ((table.support - 1, math.inf), (table.support, 0.5)):
        depth = np.full(CAMERA.size, np.inf, np.float32)
        depth[rows[upper[-count:]], columns[upper[-count:]]] = 0.5
        assert numpy_scan(depth, table)[sector] == pytest.approx(expected, rel=0.03)


def test_what_is_not_seen_is_neither_free_nor_an_obstacle() -> None:
    table = scan_table(CAMERA, LEVEL)
    depth = np.full(CAMERA.size, np.nan, np.float32)
    assert np.isnan(numpy_scan(depth, table)).all()
    depth[:, : CAMERA.size[1] // 2] = np.inf  # sky on the left
    ranges = numpy_scan(depth, table)
    assert np.isnan(ranges[: table.num_bearings // 2 - 1]).all()
    assert np.isposinf(ranges[table.num_bearings // 2 + 1 :]).all()


def test_a_sector_mostly_unseen_is_not_free() -> None:
    table = scan_table(CAMERA, LEVEL)
    depth = np.full(CAMERA.size, np.inf, np.float32)
    depth[: CAMERA.size[0] * 2 // 3] = np.nan
    assert np.isnan(numpy_scan(depth, table)).all()


def test_ranges_stay_within_those_of_the_settings() -> None:
    mounted = ScanSettings(0.6, range_min_m=0.5, range_max_m=3.0, increment_deg=DEG)
    table = scan_table(CAMERA, mounted)
    assert numpy_scan(np.full(CAMERA.size, 0.2, np.float32), table) == pytest.approx(0.5, rel=0.02)
    assert numpy_scan(np.full(CAMERA.size, 2.8, np.float32), table).min() > 2.7
    assert np.isposinf(numpy_scan(np.full(CAMERA.size, 4.0, np.float32), table)).all()
    assert mounted.range_min_m <= table.range_m.min() <= table.range_m.max() <= mounted.range_max_m


def test_the_margin_shortens_ranges_and_leaves_heights_alone() -> None:
    wall = rendered(CAMERA, LEVEL, (np.array([1.0, 0, 0]), 2.0), (np.array([0, 0, 1.0]), -0.6))
    plain = numpy_scan(wall, scan_table(CAMERA, LEVEL))
    careful = numpy_scan(wall, scan_table(CAMERA, ScanSettings(0.6, margin=0.1, increment_deg=DEG)))
    assert careful == pytest.approx(plain * math.exp(-0.1), rel=1e-6)


def test_cells_are_a_32nd_of_an_octave() -> None:
    table = scan_table(CAMERA, ScanSettings(0.6, range_min_m=0.25, range_max_m=8.0, increment_deg=DEG))
    assert len(table.range_m) == 5 * 32 + 1
    ratio = np.log2(table.range_m[2:-1] / table.range_m[1:-2])
    assert ratio == pytest.approx(1 / 32, rel=0.45)  # even in the float's bits: 1.44 to 0.72 of the mean
    distances = np.exp(np.random.default_rng(0).uniform(math.log(0.3), math.log(7.5), 500)).astype(np.float32)
    told = [float(table.range_m[(int(one.view(np.int32)) >> 18) - table.first_cell]) for one in distances]
    errors = np.abs(np.log(told / distances))
    assert errors.mean() < 0.007
    assert errors.max() < 0.016


def test_pixels_outside_the_box_do_not_count() -> None:
    box = Box(0, 16, 48, 48)
    table = scan_table(CAMERA, LEVEL, box)
    assert (table.bearing[:, :16] == -1).all()
    assert (table.bearing[:, 48:] == -1).all()
    depth = np.full(CAMERA.size, 1.0, np.float32)
    depth[box.slices] = np.inf
    assert np.isposinf(numpy_scan(depth, table)).all()


def test_the_support_is_a_solid_angle() -> None:
    small, large = (scan_table(Camera.from_fov(57, 57, (side, side)), LEVEL).support for side in (192, 448))
    assert (small, large) == (8, 46)


def test_reach_is_how_far_a_camera_that_looks_down_sees() -> None:
    mounted = ScanSettings(1.0, 60.0, increment_deg=DEG)
    table = scan_table(CAMERA, mounted)
    middle = table.num_bearings // 2
    top_row = math.radians(60) - math.atan(CAMERA.cy / CAMERA.fy)  # below the horizon
    assert table.reach_m[middle] == pytest.approx((1.0 - mounted.lowest_m) / math.tan(top_row), rel=0.06)
    assert (scan_table(CAMERA, LEVEL).reach_m == np.float32(10.0)).all()


def test_the_transform_carries_the_level_frame_into_the_optical_one() -> None:
    mounted = ScanSettings(0.6, 21.0, -13.0, increment_deg=DEG)
    table = scan_table(CAMERA, mounted)
    scan = scan_of(numpy_scan(np.ones(CAMERA.size, np.float32), table), table)
    optical = np.array([(40 - CAMERA.cx) / CAMERA.fx, (9 - CAMERA.cy) / CAMERA.fy, 1.0])
    found = Rotation.from_quat(scan.rotation).apply(level_rays(CAMERA, mounted)[9, 40])
    assert found == pytest.approx(optical, abs=1e-12)


def test_bearings_grow_counter_clockwise_by_whole_increments() -> None:
    table = scan_table(CAMERA, LEVEL)
    assert table.bearing[24, 0] > table.bearing[24, 63]
    assert math.degrees(table.angle_increment) == pytest.approx(DEG)
    assert math.degrees(table.angle_min) / DEG % 1 == pytest.approx(0.5)
    assert math.degrees(-table.angle_min) == pytest.approx(28.5, abs=DEG)


@pytest.mark.parametrize(
    "mounted",
    [
        ScanSettings(0.1, 80.0, min_height_m=0.2, increment_deg=DEG),  # looks down from below the lowest obstacle
        ScanSettings(3.0, -60.0, increment_deg=DEG),  # looks up from above the highest
    ],
)
def test_a_mounting_that_sees_no_obstacle_is_refused(mounted: ScanSettings) -> None:
    with pytest.raises(UsageError, match=r"no sector of 1\.8 degrees sees heights of .* check these, or lower"):
        scan_table(CAMERA, mounted)


def test_sectors_narrower_than_the_columns_of_the_map_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"a sector of 0\.5 degrees holds 0 pixels .* is 1 pixels: raise increment_deg"
    ):
        scan_table(CAMERA, ScanSettings(0.6, increment_deg=0.5))


def test_a_support_larger_than_a_sector_is_refused() -> None:
    with pytest.raises(UsageError, match=r"holds 48 pixels .* 100 square degrees is 128 pixels: .* lower support_deg2"):
        scan_table(CAMERA, ScanSettings(0.6, increment_deg=DEG, support_deg2=100))


def test_a_map_of_another_size_is_refused() -> None:
    table = scan_table(CAMERA, LEVEL)
    with pytest.raises(UsageError, match=r"depth is float32 \(48, 63\): expected float32 \(48, 64\)"):
        numpy_scan(np.ones((48, 63), np.float32), table)
    with pytest.raises(UsageError, match="depth is float64"):
        numpy_scan(np.ones((48, 64)), table)
