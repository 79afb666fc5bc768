"""Relative focal lengths: invariance to resizing, values from data sheets, and invalid input."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mvde
from mvde.camera import (
    Camera,
    focal_from_fov,
    fov_from_focal,
    parse_camera,
    parse_fov,
    relative_focal,
)
from mvde.contract import FocalConvention
from mvde.datasets.sample import DepthSample
from mvde.errors import UsageError


@pytest.mark.parametrize("size", [(480, 640), (240, 640), (224, 224)])
def test_the_relative_focal_length_does_not_change_when_a_picture_is_stretched(size: tuple[int, int]) -> None:
    stretched = (600.0 * size[1] / 640, 590.0 * size[0] / 480, 0.0, 0.0)
    expected = math.sqrt(600 / 640 * 590 / 480)
    assert relative_focal(stretched, size) == pytest.approx(expected)


def test_field_of_view_and_focal_length_say_the_same() -> None:
    fov = (2 * math.degrees(math.atan(640 / 2 / 600)), 2 * math.degrees(math.atan(480 / 2 / 590)))
    assert focal_from_fov(fov) == pytest.approx(relative_focal((600, 590, 320, 240), (480, 640)))
    assert fov_from_focal(focal_from_fov((57.3, 57.3))) == pytest.approx(57.3)
    assert focal_from_fov((90, 90)) == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["69x42", " 69.0 x 42 ", "69×42"])
def test_a_field_of_view_is_read_as_data_sheets_write_it(text: str) -> None:
    assert parse_fov(text) == (69.0, 42.0)


@pytest.mark.parametrize("text", ["69", "69x", "x42", "69,42", "69x42x1", "-69x42", "wide", "0x42", "69x180", "nanx42"])
def test_what_is_no_field_of_view_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"field of view") as refused:
        parse_fov(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("focal", [0.0, -1.0, math.nan, math.inf])
def test_focal_lengths_that_are_none_are_refused(focal: float) -> None:
    with pytest.raises(UsageError, match="focal lengths must be positive"):
        relative_focal((focal, 500.0, 0, 0), (480, 640))


def test_the_focal_length_of_a_frame_is_that_of_its_intrinsics() -> None:
    rgb, depth_m = np.zeros((50, 100, 3), np.uint8), np.ones((50, 100), np.float32)
    known = DepthSample(rgb, depth_m, np.array([120, 60, 50, 25], np.float32), "frame")
    assert known.focal == pytest.approx(1.2)
    assert DepthSample(rgb, depth_m, None, "frame").focal is None


def test_a_camera_is_four_numbers_and_a_size_or_a_file(tmp_path: Path) -> None:
    camera = Camera(256.0, 192.0, 320.5, -1.0, size=(480, 640))
    assert camera.relative_focal == pytest.approx(0.4)
    assert parse_camera("256,192, 320.5,-1", (480, 640)) == camera
    path = tmp_path / "camera.json"
    numbers = {"fx": 256.0, "fy": 192.0, "cx": 320.5, "cy": -1.0, "width": 640, "height": 480}
    path.write_text(json.dumps({**numbers, "distortion": [0, 0]}))
    assert parse_camera(str(path)) == Camera.from_file(path) == mvde.Camera.from_file(str(path)) == camera


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "lacks fx, fy, cx, cy, width, height"),
        ("[1, 2]", "lacks fx, fy"),
        ("{", "is not valid JSON"),
        ("\xff", "is not valid JSON"),
        ("[" * 60_000, "is not valid JSON"),
        (" " * 70_000, "is larger than 65536 bytes"),
        (
            '{"fx": "5", "fy": 5, "cx": 1, "cy": 1, "width": 4, "height": 4}',
            "fx of a camera must be a number of pixels",
        ),
        ('{"fx": NaN, "fy": 5, "cx": 1, "cy": 1, "width": 4, "height": 4}', "fx of a camera lies between 0 and"),
        ('{"fx": 5, "fy": 5, "cx": 1, "cy": 1e400, "width": 4, "height": 4}', "cy of a camera lies between -1e"),
        ('{"fx": 5, "fy": 5, "cx": 1, "cy": 1, "width": 4.5, "height": 4}', "width of a camera must be a whole number"),
        (
            '{"fx": 5, "fy": 5, "cx": 1, "cy": 1, "width": true, "height": 4}',
            "width of a camera must be a whole number",
        ),
        ('{"fx": 5, "fy": 5, "cx": 1, "cy": 1, "width": 4, "height": 0}', "height of a camera lies between 0 and"),
    ],
)
def test_a_file_that_describes_no_camera_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "camera.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=re.escape(message)) as refused:
        Camera.from_file(path)
    assert "camera.json" in str(refused.value)


def test_a_camera_whose_file_is_none_or_whose_size_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        Camera.from_file(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match="is not a file"):
        Camera.from_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not a file"):
        Camera.from_file(tmp_path / "pipe")
    (tmp_path / "camera.json").write_text("{}")
    with pytest.raises(UsageError, match="leave --frame out"):
        parse_camera(str(tmp_path / "camera.json"), (480, 640))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": 0.0}, "fx of a camera lies between 0 and"),
        ({"fy": -500.0}, "fy of a camera lies between 0 and"),
        ({"fx": math.nan}, "fx of a camera lies between 0 and"),
        ({"cy": math.inf}, "cy of a camera lies between"),
        ({"fx": "500"}, "fx of a camera must be a number of pixels"),
        ({"size": (480, 0)}, "width of a camera lies between 0 and"),
        ({"size": (480.5, 640)}, "height of a camera must be a whole number"),
        ({"size": 480}, r"is \(height, width\) in pixels, but got 480"),
        ({"size": (480, 640, 3)}, r"is \(height, width\)"),
    ],
)
def test_numbers_that_are_no_camera_are_refused(change: dict[str, Any], message: str) -> None:
    numbers: dict[str, Any] = {"fx": 500.0, "fy": 500.0, "cx": 320.0, "cy": 240.0, "size": (480, 640)}
    with pytest.raises(UsageError, match=message):
        Camera(**{**numbers, **change})


def test_a_field_of_view_gives_a_centred_camera_with_square_pixels_where_one_angle_is_known() -> None:
    camera = Camera.from_fov(90, 90, (480, 640))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((320, 240, 319.5, 239.5))
    assert camera.relative_focal == pytest.approx(focal_from_fov((90, 90)))
    across, down = Camera.from_fov(90, None, (480, 640)), Camera.from_fov(None, 90, (480, 640))
    assert (across.fx, across.fy) == pytest.approx((320, 320))
    assert (down.fx, down.fy) == pytest.approx((240, 240))
    for angles in ((None, None), (0, 50), (50, 171), (math.nan, None)):
        with pytest.raises(UsageError, match="field of view"):
            Camera.from_fov(*angles, (480, 640))


def test_a_camera_projects_points_to_where_the_pixels_of_a_crop_and_of_a_scaled_frame_are() -> None:
    """A point is projected with each camera; the picture is what maps one projection to the other."""
    camera = Camera(500.0, 480.0, 330.0, 250.0, (480, 640))
    x, y, z = 0.3, -0.2, 2.0

    def project(one: Camera) -> tuple[float, float]:
        return one.fx * x / z + one.cx, one.fy * y / z + one.cy

    u, v = project(camera)
    assert project(camera.cropped(10, 20, (400, 600))) == pytest.approx((u - 20, v - 10))
    assert project(camera.cropped(-8, -4, (500, 650))) == pytest.approx((u + 4, v + 8))
    # The edges of pixels scale: pixel u covers u - 1/2 to u + 1/2 of the 640 pixels.
    assert project(camera.scaled((120, 320))) == pytest.approx(((u + 0.5) / 2 - 0.5, (v + 0.5) / 4 - 0.5))
    assert camera.scaled((120, 320)).scaled(camera.size) == camera


def test_conventions_are_those_of_their_models() -> None:
    camera = Camera(500.0, 480.0, 330.0, 250.0, (480, 640))
    assert camera.focal(FocalConvention.GEOMETRIC) == pytest.approx(math.sqrt(500 / 640 * 480 / 480))
    assert camera.focal(FocalConvention.HORIZONTAL) == pytest.approx(500 / 640)
    assert camera.focal(FocalConvention.PIXELS) == pytest.approx(490)


def test_a_camera_of_another_size_than_the_frame_is_refused_with_both_sizes() -> None:
    camera = Camera(500.0, 480.0, 330.0, 250.0, (480, 640))
    camera.check_frame((480, 640))
    with pytest.raises(UsageError, match=r"frames of 480x640, but this frame is 640x480.*Camera\.scaled"):
        camera.check_frame((640, 480))
