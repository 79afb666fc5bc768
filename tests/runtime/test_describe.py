"""Descriptions of scans: what they say of near, free and unknown directions, in words and in JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.runtime.describe import Description, describe_scan
from mvde.runtime.placement import place
from mvde.runtime.result import DepthResult, Timings, stacked
from mvde.runtime.scan import Scan, numpy_scan, scan_of
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import scan_table

INF, NAN = math.inf, math.nan
SETTINGS = ScanSettings(height_m=0.5, max_height_m=1.2, range_max_m=8.0)


def scan(ranges: list[float], step_deg: float = 12.0, reach_m: float = 100.0) -> Scan:
    """Scan of bearings that are ``step_deg`` apart and symmetric about straight ahead."""
    step = math.radians(step_deg)
    values, reach = np.array(ranges, np.float32), np.full(len(ranges), reach_m, np.float32)
    return Scan(values, -(len(ranges) - 1) / 2 * step, step, 0.1, 8.0, reach, SETTINGS)


def said(description: Description) -> str:
    """The sentences on directions, without those on what the distances are."""
    return str(description).split(" Distances are")[0]


def test_the_nearest_obstacle_comes_first_and_then_the_other_directions() -> None:
    #                        -48  -36  -24  -12    0   12   24   36   48 degrees
    found = describe_scan(scan([INF, INF, 2.4, 3.0, 5.0, 1.9, 0.8, 1.2, NAN]))
    assert said(found) == (
        "Nearest obstacle 0.8 m ahead left (24 degrees left). Right: free to 8.0 m. Ahead right: obstacle at 2.4 m. "
        "Ahead: obstacle at 5.0 m. Left: obstacle at 1.2 m, but 50 % of it is unknown."
    )
    assert [one.name for one in found.directions] == ["right", "ahead right", "ahead", "ahead left", "left"]
    assert found.nearest is not None
    assert found.nearest.nearest_deg == pytest.approx(24)
    assert (found.nearest.from_deg, found.nearest.to_deg) == pytest.approx((6, 30))


def test_free_is_told_no_farther_than_the_camera_sees_and_unknown_is_not_free() -> None:
    found = describe_scan(scan([NAN, NAN, INF, INF, NAN, NAN, NAN], reach_m=2.25))
    assert said(found) == (
        "No obstacle was seen. Right: unknown. Ahead right: free to 2.2 m, but 50 % of it is unknown. "
        "Ahead: free to 2.2 m. Ahead left: unknown. Left: unknown."
    )
    assert found.nearest is None


def test_an_obstacle_beside_free_bearings_bounds_what_is_free() -> None:
    ahead = describe_scan(scan([INF, 5.0, INF], step_deg=5.0, reach_m=3.0)).directions[0]
    assert (ahead.nearest_m, ahead.free_to_m, ahead.unseen) == (5.0, 3.0, 0.0)
    assert ahead.nearest_deg == pytest.approx(0, abs=1e-6)


def test_of_obstacles_as_near_the_one_straight_ahead_is_told() -> None:
    found = describe_scan(scan([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]))
    assert said(found).startswith("Nearest obstacle 2.0 m ahead.")
    assert [one.nearest_deg for one in found.directions] == pytest.approx([-36, -12, 0, 12, 36], abs=1e-6)


def test_json_says_the_same_with_units_and_null_for_what_is_unknown() -> None:
    found = describe_scan(scan([NAN, 0.412, INF]), camera_assumed=True, calibrated="one scale")
    plain = json.loads(found.to_json())
    assert plain["unit"] == "m"
    assert (plain["camera_assumed"], plain["metres_from"]) == (True, "one scale")
    assert plain["obstacles_between_heights_m"] == [0.15, 1.2]
    assert plain["nearest"]["nearest_m"] == 0.412
    right, ahead, left = plain["directions"]
    assert (right["name"], right["free_to_m"], right["unseen"]) == ("ahead right", None, 1.0)
    assert (ahead["name"], ahead["nearest_m"]) == ("ahead", 0.412)
    assert (left["nearest_m"], left["free_to_m"]) == (None, 8.0)
    assert plain["text"] == str(found)
    assert "0.41 m ahead" in plain["text"]
    assert "the floor; nothing is known outside the picture" in plain["text"]
    assert "assumed: all distances may be wrong by one factor" in plain["text"]
    assert "NaN" not in found.to_json()
    assert "assumed:" not in str(describe_scan(scan([INF])))


def test_a_post_before_a_wall_is_where_it_stands() -> None:
    """From depth: a wall at 4 m, and in it the picture of a post at 1.5 m, 15 degrees to the right."""
    camera = Camera.from_fov(70, None, (90, 160))
    depth = np.full(camera.size, 4.0, np.float32)
    column = round(camera.cx + camera.fx * math.tan(math.radians(15)))
    depth[:, column - 2 : column + 3] = 1.5
    table = scan_table(camera, SETTINGS)
    found = describe_scan(scan_of(numpy_scan(depth, table), table))
    assert found.nearest is not None
    assert found.nearest.name == "ahead right"
    assert found.nearest.nearest_m == pytest.approx(1.5 / math.cos(math.radians(15)), rel=0.03)
    assert found.nearest.nearest_deg == pytest.approx(-15, abs=1.5)
    ahead = next(one for one in found.directions if one.name == "ahead")
    assert ahead.nearest_m == pytest.approx(4, rel=0.03)


def result_of(ranges: list[float] | None, kind: DepthKind = DepthKind.METRIC) -> DepthResult:
    depth, stats, placed = np.ones((2, 3), np.float32), np.zeros((1, 1), np.float32), place((2, 3), (2, 3), "stretch")
    found = None if ranges is None else scan(ranges)
    fixed = (stats, (1, 1), Timings(0, 0, 0), ("mean",), kind, placed)
    return DepthResult(depth, *fixed, camera_assumed=True, calibrated="anchors", scan=found)


def test_a_result_describes_its_scan() -> None:
    described = result_of([INF, 0.8, INF]).describe()
    assert str(described).startswith("Nearest obstacle 0.8 m ahead.")
    assert (described.camera_assumed, described.calibrated) == (True, "anchors")


def test_scans_of_a_batch_are_stacked_and_not_described() -> None:
    both = stacked([result_of([INF, 0.8, INF]), result_of([2.0, INF, NAN])])
    assert both.scan is not None
    np.testing.assert_array_equal(both.scan.ranges, np.array([[INF, 0.8, INF], [2.0, INF, NAN]], np.float32))
    with pytest.raises(UsageError, match=r"takes the scan of one frame, but got ranges \(2, 3\)"):
        both.describe()


def test_a_result_without_metres_or_without_a_scan_is_not_described() -> None:
    with pytest.raises(UsageError, match=r"describe\(\) needs a scan, which knows the floor: give scan="):
        result_of(None).describe()
    with pytest.raises(UsageError, match=r"describe\(\) needs a map in metres, but this one is scale_invariant"):
        result_of([INF], DepthKind.SCALE_INVARIANT).describe()
