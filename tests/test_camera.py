"""Relative focal lengths: what resizing leaves alone, what data sheets say, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvde.camera import camera_factor, focal_from_fov, fov_from_focal, parse_fov, relative_focal
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


def test_the_factor_of_a_camera_is_the_ratio_of_focal_lengths_or_one() -> None:
    assert camera_factor(1.2, 0.8) == pytest.approx(1.5)
    assert camera_factor(1.2, None) == camera_factor(None, 0.8) == 1
