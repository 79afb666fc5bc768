"""Mapping of an image to the model's resolution and back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mvde.errors import UsageError
from mvde.resampling import Resampling
from mvde.runtime.placement import Fit, check_fit, clear_bars, depth_to_source, fit_image, fitted, place

FITS = tuple(Fit)


def _photo(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def test_an_unknown_fit_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="one of stretch, letterbox, crop"):
        check_fit("fill")


def test_a_fit_is_its_text_and_may_be_given_as_one() -> None:
    assert [str(fit) for fit in Fit] == ["stretch", "letterbox", "crop"]
    assert check_fit("crop") is Fit.CROP
    for fit in Fit:
        assert place((100, 200), (64, 64), str(fit)) == place((100, 200), (64, 64), fit)


def test_images_of_several_sizes_become_one_array() -> None:
    images = [_photo(100, 200), _photo(64, 64), _photo(50, 30)]
    together = fitted(images, (48, 64), Fit.LETTERBOX)
    assert together.shape == (3, 48, 64, 3)
    for image, one in zip(images, together, strict=True):
        np.testing.assert_array_equal(one, fit_image(image, place(image.shape[:2], (48, 64), Fit.LETTERBOX)))


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_models_size_is_untouched(fit: Fit) -> None:
    image = _photo()
    placement = place((40, 60), (40, 60), fit)
    np.testing.assert_array_equal(fit_image(image, placement), image)
    depth = np.arange(1, 2401, dtype=np.float32).reshape(40, 60)
    np.testing.assert_array_equal(depth_to_source(depth, placement), depth)


def test_stretch_is_pillows_antialiased_bilinear() -> None:
    image = _photo(100, 80)
    expected = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(fit_image(image, place((100, 80), (32, 48), "stretch")), expected)


def test_letterbox_keeps_the_aspect_ratio_and_centres() -> None:
    placement = place((100, 200), (64, 64), "letterbox")
    box = placement.target_box
    assert (box.top, box.left, box.bottom, box.right) == (16, 0, 48, 64)
    image = fit_image(np.full((100, 200, 3), 7, np.uint8), placement)
    assert (image[box.slices] == 7).all()
    assert (image[:16] == 128).all()
    assert (image[48:] == 128).all()


def test_keep_aspect_rounds_to_the_multiple_as_processors_do() -> None:
    """Depth Anything's processor resizes 1080x1920 to 518x924 (height 518 is 479.6 thousandths, 920.9 wide)."""
    exact, rounded = (
        place((1080, 1920), (518, 924), "letterbox", Resampling(multiple=multiple)) for multiple in (1, 14)
    )
    assert exact.target_box.size == (518, 921)
    assert rounded.target_box.size == (518, 924)
    assert place((10, 1000), (56, 140), "letterbox", Resampling(multiple=14)).target_box.size == (14, 140)
    assert place((100, 131), (56, 56), "letterbox", Resampling(multiple=14)).target_box.top == 7


def test_keep_aspect_needs_an_input_of_multiples() -> None:
    resampling = Resampling(multiple=14)
    with pytest.raises(UsageError, match="multiples of 14 pixels does not fit into 520x924"):
        place((1080, 1920), (520, 924), "letterbox", resampling)
    assert place((1080, 1920), (520, 924), "stretch", resampling).target_box.size == (520, 924)


def test_the_padding_is_the_manifests() -> None:
    image = fit_image(_photo(), place((40, 60), (64, 64), "letterbox", Resampling(padding=0)))
    assert (image[:10] == 0).all()
    assert (image[-10:] == 0).all()


def test_crop_takes_the_middle() -> None:
    placement = place((100, 200), (64, 64), "crop")
    box = placement.source_box
    assert (box.top, box.left, box.bottom, box.right) == (0, 50, 100, 150)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", [(480, 640), (33, 517), (2, 2), (1080, 1920), (64, 48)])
def test_a_plane_of_depth_comes_back_in_place(fit: Fit, source: tuple[int, int]) -> None:
    """Depth linear in the model's input stays linear in the corresponding image pixels."""
    target = (48, 64)
    placement = place(source, target, fit)
    rows = np.linspace(1.0, 2.0, target[0], dtype=np.float32)[:, None]
    depth = depth_to_source(rows.repeat(target[1], 1), placement)
    assert depth.shape == source
    assert depth.dtype == np.float32
    box, inner = placement.source_box, placement.target_box
    outside = np.ones(source, bool)
    outside[box.slices] = False
    assert np.isnan(depth[outside]).all()
    # Pixel centres: y of the image ↔ (y + ½) · scale − ½ of the input.
    y = (np.arange(box.size[0]) + 0.5) * inner.size[0] / box.size[0] - 0.5 + inner.top
    expected = np.interp(y, np.arange(target[0]), rows[:, 0])
    edge = max(1, round(box.size[0] / inner.size[0]) + 1)  # the border is replicated, not extrapolated
    middle = slice(edge, max(box.size[0] - edge, edge))
    np.testing.assert_allclose(depth[box.slices][middle].mean(1), expected[middle], atol=2e-3)


@pytest.mark.parametrize("invalid", [np.nan, 0.0])
@pytest.mark.parametrize("source", [(64, 128), (100, 200), (40, 90)])
def test_a_hole_and_what_was_not_seen_are_invalid_and_nothing_beside_them(
    source: tuple[int, int], invalid: float
) -> None:
    depth = np.full((64, 64), 5, np.float32)
    depth[10:30, 20:40] = np.nan
    placement = place(source, (64, 64), "crop")
    mapped = depth_to_source(depth, placement, invalid)
    height, width = source
    y, x = np.mgrid[:height, :width]
    down, across = (y + 0.5) / height * 64, (x + 0.5 - placement.source_box.left) / placement.source_box.size[1] * 64
    hole = (down > 10) & (down < 30) & (across > 20) & (across < 40)
    corners = [abs(down - at) for at in (10, 30)], [abs(across - at) for at in (20, 40)]
    near_corner = (np.minimum(*corners[0]) < 0.6) & (np.minimum(*corners[1]) < 0.6)  # corners are rounded
    expected = np.where(hole | (across < 0) | (across > 64), np.float32(invalid), np.float32(5))
    np.testing.assert_array_equal(mapped[~near_corner], expected[~near_corner])


def test_bars_have_no_depth() -> None:
    placement = place((100, 200), (64, 64), "letterbox")
    cleared = clear_bars(np.ones((64, 64), np.float32), placement)
    assert np.isnan(cleared).sum() == 32 * 64
    assert (cleared[placement.target_box.slices] == 1).all()
