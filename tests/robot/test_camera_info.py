"""Cameras of CameraInfo, and the CameraInfo of the patch grid: a patch's pixel has the ray of the patch's centre."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.errors import UsageError
from mvde.robot.camera_info import frame_camera, grid_message, message_of_camera
from mvde.runtime.placement import Fit, place

pytest.importorskip("rosbags")

SIZE, INPUT, GRID = (480, 640), (224, 320), (14, 20)


@pytest.fixture(scope="module")
def types() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE).types


@pytest.fixture
def info(types: Any) -> Any:
    """CameraInfo of a distorted right camera of a stereo pair."""
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "optical")
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([600.0, 0, 310, 0, 610, 250, 0, 0, 1])
    p = np.array([500.0, 0, 320, -60, 0, 505, 240, 0, 0, 0, 1, 0])
    d = np.array([0.1, -0.2, 0.001, 0.002, 0.05])
    return types["sensor_msgs/msg/CameraInfo"](header, *SIZE, "plumb_bob", d, k, np.eye(3).reshape(-1), p, 0, 0, region)


def test_a_rectified_topic_has_the_camera_of_p_and_a_raw_one_that_of_k(info: Any) -> None:
    rectified, raw = frame_camera(info, True), frame_camera(info, False)
    assert rectified is not None
    assert raw is not None
    assert (rectified.is_rectified, raw.is_rectified) == (True, False)
    assert rectified.camera == Camera(500, 505, 320, 240, SIZE)
    assert (raw.camera.fx, raw.camera.fy, raw.camera.cx, raw.camera.cy) == (600, 610, 310, 250)
    assert raw.camera.distortion is not None
    assert raw.camera.distortion.coefficients == (0.1, -0.2, 0.001, 0.002, 0.05)
    info.d = np.zeros(5)
    undistorted = frame_camera(info, False)
    assert undistorted is not None
    assert undistorted.is_rectified
    assert undistorted.camera == rectified.camera


def test_without_p_an_undistorted_camera_is_that_of_k_and_without_k_there_is_none(info: Any) -> None:
    info.d, info.p = np.zeros(0), np.zeros(12)
    found = frame_camera(info, False)
    assert found is not None
    assert found.camera.fx == 600
    info.k = np.zeros(9)
    assert frame_camera(info, False) is None


def test_a_distortion_that_is_not_known_leaves_the_camera_and_says_so(info: Any) -> None:
    info.distortion_model = "thin_prism_fisheye"
    found = frame_camera(info, False)
    assert found is not None
    assert found.camera.distortion is None
    assert found.problem is not None
    assert "thin_prism_fisheye" in found.problem


def test_numbers_that_are_no_camera_are_refused(info: Any) -> None:
    info.k[0] = -600
    with pytest.raises(UsageError, match="fx of a camera"):
        frame_camera(info, False)


def test_binning_and_region_of_interest_are_applied_as_image_geometry_does(info: Any, types: Any) -> None:
    info.binning_x, info.binning_y = 2, 2
    info.roi = types["sensor_msgs/msg/RegionOfInterest"](100, 40, 400, 500, True)
    found = frame_camera(info, True)
    assert found is not None
    # image_geometry: cx = (cx - x_offset) / binning_x, fx = fx / binning_x.
    assert found.camera == Camera(250, 252.5, (320 - 100) / 2, (240 - 40) / 2, (200, 250))


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("matrix", ["k", "p"])
def test_a_pixel_of_the_grid_has_the_ray_of_its_patchs_centre(info: Any, fit: Fit, matrix: str) -> None:
    placement = place(SIZE, INPUT, fit)
    message = grid_message(info, placement, GRID)
    assert (message.height, message.width) == GRID
    whole, small = (np.asarray(getattr(one, matrix)).reshape(3, -1) for one in (info, message))
    points = np.random.default_rng(2).normal(loc=[0, 0, 5], size=(50, 3))
    if matrix == "p":
        points = np.hstack([points, np.ones((50, 1))])
    in_frame, in_grid = ((found := points @ one.T)[:, :2] / found[:, 2:] for one in (whole, small))
    source, target = placement.source_box, placement.target_box
    # From edges, half a pixel before the first centre: through both boxes, then 16 pixels of the input to a patch.
    for axis, (start, side, place_start, place_side) in enumerate(
        [
            (source.left, source.size[1], target.left, target.size[1]),
            (source.top, source.size[0], target.top, target.size[0]),
        ]
    ):
        in_input = (in_frame[:, axis] + 0.5 - start) / side * place_side + place_start
        np.testing.assert_allclose(in_grid[:, axis], in_input / 16 - 0.5, atol=1e-9)


def test_distortion_and_rectification_of_the_grid_are_those_of_the_frame(info: Any) -> None:
    message = grid_message(info, place(SIZE, INPUT, "stretch"), GRID)
    np.testing.assert_array_equal(message.d, info.d)
    np.testing.assert_array_equal(message.r, info.r)
    assert message.distortion_model == "plumb_bob"
    np.testing.assert_allclose(message.p[3] / message.p[0], -60 / 500)  # the baseline


def test_a_camera_that_was_given_comes_back_from_its_message(types: Any) -> None:
    camera = Camera(500, 505, 320, 240, SIZE)
    found = frame_camera(message_of_camera(camera, types, None), False)
    assert found is not None
    assert found.camera == camera
    assert found.is_rectified
