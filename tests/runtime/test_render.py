"""Rendered depth: uniformity of the colour map, and the scale bar."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.contract import DepthKind
from mvde.runtime.render import INVALID_COLOUR, colour_table, colourise, depth_picture


def test_lightness_falls_evenly_from_near_to_far() -> None:
    skimage_color = pytest.importorskip("skimage.color")
    lab = skimage_color.rgb2lab(colour_table()[None] / 255.0)[0]
    steps = np.diff(lab[:, 0])
    assert (steps < 0.2).all()  # 8-bit rounding may flatten a step, but not reverse it visibly
    assert lab[0, 0] > 85
    assert lab[-1, 0] < 15
    difference = np.linalg.norm(np.diff(lab[::16], axis=0), axis=1)
    assert difference.max() < 3 * difference.min()


def test_no_two_depths_share_a_colour() -> None:
    assert len(np.unique(colour_table(), axis=0)) == 256


def test_invalid_pixels_have_a_colour_of_their_own() -> None:
    depth_m = np.array([[1.0, 0.0, np.nan, 2.0]], np.float32)
    picture = colourise(depth_m, 1.0, 2.0)
    np.testing.assert_array_equal(picture[0, 0], colour_table()[0])
    np.testing.assert_array_equal(picture[0, 3], colour_table()[-1])
    assert (picture[0, 1:3] == INVALID_COLOUR).all()
    assert INVALID_COLOUR not in {tuple(colour) for colour in colour_table().tolist()}


@pytest.mark.parametrize("shape", [(2, 2), (3, 400), (480, 640)])
def test_the_scale_stands_under_the_picture(shape: tuple[int, int]) -> None:
    depth_m = np.linspace(1, 3, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    picture = np.asarray(depth_picture(depth_m))
    assert picture.shape[1] == shape[1]
    assert picture.shape[0] > shape[0] + 10
    below = picture[shape[0] :]
    assert (below == 255).all(axis=-1).any()
    if shape[1] > 100:
        dark = (below.sum(-1) < 60).sum()
        assert dark > 50  # ticks and labels


@pytest.mark.parametrize("value", [0.0, np.nan, 2.5])
def test_a_flat_or_empty_map_still_has_a_picture(value: float) -> None:
    assert depth_picture(np.full((20, 30), value, np.float32)).size[0] == 30


@pytest.mark.parametrize("kind", [DepthKind.INVERSE_RELATIVE, DepthKind.INVERSE_CANONICAL])
def test_near_has_the_same_colour_for_inverse_depth(kind: DepthKind) -> None:
    depth_m = np.linspace(1, 3, 120 * 160, dtype=np.float32).reshape(120, 160)
    metric, inverse = (
        np.asarray(depth_picture(depth, one)) for depth, one in ((depth_m, DepthKind.METRIC), (1 / depth_m, kind))
    )
    np.testing.assert_array_equal(
        metric[[0, 119]][:, [0, 159]][[0, 1], [0, 1]], inverse[[0, 119]][:, [0, 159]][[0, 1], [0, 1]]
    )
    tiny = np.asarray(depth_picture(1e-4 * depth_m, kind))  # a unit that is not known has no smallest range
    assert len(np.unique(tiny[:120].reshape(-1, 3), axis=0)) > 200
    assert (np.asarray(depth_picture(np.zeros_like(depth_m), kind))[:120] == INVALID_COLOUR).all()
