"""Resizing of frames and depth: libmvde against Pillow, threads, and buffers kept between frames."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mvde import native
from mvde.contract import Interpolation
from mvde.errors import ImageError, UsageError
from mvde.resampling import Resampling
from mvde.runtime import fitter as fitting
from mvde.runtime.fitter import FrameFitter
from mvde.runtime.placement import depth_to_source, fit_image, place

FITS = ("stretch", "letterbox", "crop")
SIZES = ((32, 48), (100, 61), (61, 200), (20, 20))  # the first is the model's resolution
RESOLUTION = SIZES[0]


def fit_and_map_back(fitter, image, depth, fit):
    out = np.full((*RESOLUTION, 3), 255, np.uint8)
    fitted = fitter.fit(image, fit, out)
    return out, fitter.depth_to_source(depth, fitted)


def example(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.uniform(0.1, 9, RESOLUTION).astype(np.float32)


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES)
def test_gives_pillows_bits_with_and_without_the_library(size, fit, library, monkeypatch) -> None:
    if library and not native.is_available():
        pytest.skip("libmvde is not installed")
    monkeypatch.setattr(native, "is_available", lambda: library)
    image, depth = example(size)
    placement = place(size, RESOLUTION, fit)
    resized, mapped = fit_and_map_back(FrameFitter(RESOLUTION), image, depth, fit)
    np.testing.assert_array_equal(resized, fit_image(image, placement))
    np.testing.assert_array_equal(mapped, depth_to_source(depth, placement))


@pytest.mark.parametrize("library", [True, False])
def test_frames_are_resampled_and_padded_as_asked(library, monkeypatch) -> None:
    if library and not native.is_available():
        pytest.skip("libmvde is not installed")
    monkeypatch.setattr(native, "is_available", lambda: library)
    resampling = Resampling(
        interpolation=Interpolation.BICUBIC, bicubic_coefficient=-0.75, antialias=False, multiple=16, padding=3
    )
    image, depth = example((100, 61))
    resized, _ = fit_and_map_back(FrameFitter(RESOLUTION, resampling), image, depth, "letterbox")
    placement = place((100, 61), RESOLUTION, "letterbox", resampling)
    assert placement.target_box.size == (32, 16)
    np.testing.assert_array_equal(resized, fit_image(image, placement))
    assert (resized[:, :16] == 3).all()


@pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")
@pytest.mark.parametrize("size", SIZES)
def test_threads_that_share_a_frame_give_the_same_bits(size, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "num_cpus", lambda: 3)
    image, depth = example(size)
    fitter = FrameFitter(RESOLUTION)
    out = np.empty((2, *RESOLUTION, 3), np.uint8)
    fitted = [fitter.fit(image, "letterbox", out[index], parallel=bool(index)) for index in range(2)]
    np.testing.assert_array_equal(out[0], out[1])
    alone, shared = (fitter.depth_to_source(depth, fitted[index], parallel=bool(index)) for index in range(2))
    np.testing.assert_array_equal(alone, shared)
    assert all(way.threads is not None for way in fitter._pool.idle)  # threads were used


def test_views_of_a_frame_are_read_as_they_are() -> None:
    image, depth = example((100, 61))
    wide = np.repeat(image, 2, axis=1)
    expected = fit_and_map_back(FrameFitter(RESOLUTION), image, depth, "stretch")[0]
    for view in (wide[:, ::2], np.ascontiguousarray(image[::-1])[::-1], np.asfortranarray(image)):
        np.testing.assert_array_equal(fit_and_map_back(FrameFitter(RESOLUTION), view, depth, "stretch")[0], expected)


def test_threads_share_one() -> None:
    fitter = FrameFitter(RESOLUTION)
    jobs = [(*example(SIZES[seed % 4], seed), FITS[seed % 3]) for seed in range(48)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda job: fit_and_map_back(fitter, *job), jobs))
    for job, (resized, mapped) in zip(jobs, results, strict=True):
        alone = fit_and_map_back(FrameFitter(RESOLUTION), *job)
        np.testing.assert_array_equal(resized, alone[0])
        np.testing.assert_array_equal(mapped, alone[1])


@pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")
def test_a_size_is_prepared_once_and_old_ones_are_forgotten(monkeypatch) -> None:
    made = []
    real = native.Resizer

    def counting(*arguments, **options):
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(native, "Resizer", counting)
    fitter = FrameFitter(RESOLUTION)
    for _ in range(3):
        fit_and_map_back(fitter, *example((50, 50)), "stretch")
    assert len(made) == 1
    for side in range(51, 51 + fitting._MAX_IDLE):
        fit_and_map_back(fitter, *example((side, side)), "stretch")
    with pytest.raises(UsageError, match="closed"):
        made[0].handle  # noqa: B018 - the property raises
    fitter.close()
    for resizer in made:
        with pytest.raises(UsageError, match="closed"):
            resizer.handle  # noqa: B018


def test_bad_frames_are_refused_before_anything_is_written() -> None:
    out = np.full((*RESOLUTION, 3), 255, np.uint8)
    with pytest.raises(ImageError, match="grey"):
        FrameFitter(RESOLUTION).fit(np.zeros((50, 50), np.uint8), "stretch", out)
    with pytest.raises(UsageError, match="fit"):
        FrameFitter(RESOLUTION).fit(np.zeros((50, 50, 3), np.uint8), "zoom", out)
    assert (out == 255).all()


@pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")
def test_the_resizer_refuses_an_output_that_it_could_not_fill() -> None:
    with native.Resizer((50, 50), RESOLUTION) as resizer:
        for out in (np.zeros((32, 48), np.uint8), np.zeros((32, 96, 3), np.uint8)[:, ::2], np.zeros((32, 48, 3))):
            with pytest.raises(UsageError, match="contiguous uint8"):
                resizer.resize(np.zeros((50, 50, 3), np.uint8), out=out)
