"""Augmentation: depth stays aligned with the image, and scales with the focal length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mvde.config import AugmentConfig
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError
from mvde.pipelines.augment import Transform, crop_box, draw_transform, jitter_colours, transform_sample


def coded_sample(height: int = 48, width: int = 64) -> DepthSample:
    """Frame that encodes row and column in red and green, and in depth as row + column / 100."""
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack([4 * rows, 4 * columns, 0 * rows], axis=-1).astype(np.uint8)
    return DepthSample(rgb, (1 + rows + columns / 100).astype(np.float32), None, "coded")


def test_nothing_drawn_means_nothing_changed() -> None:
    sample = coded_sample(32, 32)
    image, depth = transform_sample(sample, (32, 32), Transform())
    assert np.array_equal(image.permute(1, 2, 0).numpy(), sample.rgb)
    assert np.array_equal(depth, sample.depth_m)


def test_a_flip_mirrors_picture_and_depth_alike() -> None:
    sample = coded_sample(32, 32)
    image, depth = transform_sample(sample, (32, 32), Transform(flip=True))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), sample.rgb[:, ::-1])
    assert np.array_equal(depth, sample.depth_m[:, ::-1])


def test_a_crop_shows_the_same_place_in_picture_and_depth() -> None:
    transform = Transform(scale=0.5, offset=(0.25, 0.75))
    sample = coded_sample(64, 64)
    image, depth = transform_sample(sample, (32, 32), transform)
    top, left, height, width = crop_box((64, 64), (32, 32), transform)
    assert (top, left, height, width) == (8, 24, 32, 32)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), sample.rgb[8:40, 24:56])
    assert np.array_equal(depth, sample.depth_m[8:40, 24:56] / 2)


def test_a_zoomed_pinhole_view_gets_the_depth_of_the_camera_that_took_it_unzoomed() -> None:
    """A disc of radius r at depth z covers f * r / z pixels; after a zoom its depth label must be consistent with f."""
    focal, radius_m, z = 40.0, 0.5, 2.0
    rows, columns = np.mgrid[:96, :96]
    disc = np.hypot(rows + 0.5 - 48, columns + 0.5 - 48) < focal * radius_m / z
    sample = DepthSample(
        np.repeat((255 * disc)[..., None], 3, axis=-1).astype(np.uint8), np.full((96, 96), z, np.float32), None, "disc"
    )
    image, depth = transform_sample(sample, (96, 96), Transform(scale=0.5))
    apparent_radius = np.sqrt((image[0].numpy() > 127).sum() / np.pi)
    assert focal * radius_m / apparent_radius == pytest.approx(float(depth[48, 48]), rel=0.03)  # pixel quantisation


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_canonical_camera_explains_the_size_of_what_any_camera_saw(scale: float) -> None:
    """A disc of radius r covers f * r / z pixels; its depth label must be consistent with the canonical f."""
    focal, canonical, radius_m, z = 60.0, 80.0, 0.5, 2.0
    rows, columns = np.mgrid[:96, :96]
    disc = np.hypot(rows + 0.5 - 48, columns + 0.5 - 48) < focal * radius_m / z
    rgb = np.repeat((255 * disc)[..., None], 3, axis=-1).astype(np.uint8)
    intrinsics = np.array([focal, focal, 48, 48], np.float32)
    sample = DepthSample(rgb, np.full((96, 96), z, np.float32), intrinsics, "disc")
    image, depth = transform_sample(sample, (96, 96), Transform(scale=scale), canonical / 96)
    apparent_radius = np.sqrt((image[0].numpy() > 127).sum() / np.pi)
    assert canonical * radius_m / apparent_radius == pytest.approx(float(depth[48, 48]), rel=0.03)


def test_a_frame_without_intrinsics_has_no_depth_for_the_canonical_camera() -> None:
    with pytest.raises(DatasetError, match=r"coded has no intrinsics.*canonical_focal to null"):
        transform_sample(coded_sample(), (32, 32), Transform(), 0.9)


def test_resizing_without_a_crop_leaves_depth_alone() -> None:
    sample = coded_sample(48, 48)
    _, depth = transform_sample(sample, (24, 24), Transform())
    assert set(depth.ravel()) <= set(sample.depth_m.ravel())
    assert depth[0, 0] == sample.depth_m[1, 1]


def test_depth_is_never_averaged_across_an_edge() -> None:
    depth = np.ones((40, 40), np.float32)
    depth[:, 20:] = 9
    sample = DepthSample(np.zeros((40, 40, 3), np.uint8), depth, None, "edge")
    _, resized = transform_sample(sample, (24, 24), Transform())
    assert set(np.unique(resized)) == {1.0, 9.0}


@pytest.mark.parametrize("target", [(32, 32), (32, 64), (64, 32)])
def test_the_crop_has_the_aspect_of_the_target_and_fits(target: tuple[int, int]) -> None:
    for seed in range(50):
        transform = draw_transform(np.random.default_rng(seed), AugmentConfig(crop_min_scale=0.3))
        top, left, height, width = crop_box((48, 100), target, transform)
        assert 0 <= top <= 48 - height
        assert 0 <= left <= 100 - width
        assert height / width == pytest.approx(target[0] / target[1], rel=0.1)  # sides are rounded to pixels


def test_draws_depend_on_the_generator_alone_and_stay_in_range() -> None:
    config = AugmentConfig(flip=0.5, crop_min_scale=0.6, colour_jitter=0.2)
    drawn = [draw_transform(np.random.default_rng(k), config) for k in range(200)]
    assert drawn == [draw_transform(np.random.default_rng(k), config) for k in range(200)]
    assert 60 < sum(t.flip for t in drawn) < 140
    assert all(0.6 <= t.scale <= 1 for t in drawn)
    assert all(np.exp(-0.2) <= factor <= np.exp(0.2) for t in drawn for factor in t.jitter)


def test_each_image_of_a_batch_gets_its_own_colours() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    transforms = [Transform(), Transform(jitter=(0.5, 1, 1, 1)), Transform(jitter=(1, 1, 0.001, 1))]
    out = jitter_colours(images, transforms)
    plain = images.float() / 255
    assert torch.allclose(out[0], plain[0], atol=1e-6)
    assert torch.allclose(out[1], plain[1] / 2, atol=1e-6)
    assert out[2].std(dim=0).max() < 1e-3  # without saturation the channels are equal
    assert out.min() >= 0
    assert out.max() <= 1
