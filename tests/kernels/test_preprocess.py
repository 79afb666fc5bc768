"""The pre-processing kernel's CUDA source, run on the CPU, against Pillow."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from PIL import Image

from mvde import native
from mvde.contract import Interpolation
from mvde.cuda.preprocess import (
    DeviceFrame,
    PixelFormat,
    PreprocessParams,
    YuvStandard,
    plan_preprocess,
    preprocess_params,
    resize_tables,
)
from mvde.errors import ImageError, UsageError
from mvde.resampling import Resampling
from mvde.runtime.placement import fit_image as specification
from mvde.runtime.placement import place


def photograph(height, width, seed=0):
    """Return an image of edges, gradients and noise, to exercise resampling."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1)
    return np.where(rng.random((height, width, 1)) < 0.5, ramps, rng.integers(0, 256, (height, width, 3))).astype(
        np.uint8
    )


def fit_image(image, placement):
    """Resize with Pillow, along rows first: in two calls, since Pillow 13 chooses the order by size."""
    (height, width), source = placement.target_box.size, image[placement.source_box.slices]
    along_rows = Image.fromarray(source).resize((width, source.shape[0]), Image.Resampling.BILINEAR)
    canvas = np.full((*placement.target_size, 3), 128, np.uint8)
    canvas[placement.target_box.slices] = np.asarray(along_rows.resize((width, height), Image.Resampling.BILINEAR))
    return canvas


SIZES = [
    ((48, 64), (48, 64)),
    ((48, 64), (28, 42)),
    ((30, 50), (64, 96)),
    ((333, 217), (32, 48)),  # several bands: more source rows than are staged at a time
    ((700, 20), (16, 16)),
    ((16, 900), (20, 33)),
    ((5, 7), (70, 3)),
]


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_rgb_frames_equal_pillow_bit_for_bit(preprocess_shim, source, target, fit):
    image = photograph(*source)
    placement = place(source, target, fit)
    np.testing.assert_array_equal(preprocess_shim.run(image, placement), fit_image(image, placement))


@pytest.mark.parametrize("coefficient", [None, -0.5, -0.75])
@pytest.mark.parametrize(("antialias", "align_corners"), [(True, False), (False, False), (False, True)])
def test_every_resampling_has_the_bits_of_the_specification(preprocess_shim, antialias, align_corners, coefficient):
    resampling = Resampling(
        interpolation=Interpolation.BILINEAR if coefficient is None else Interpolation.BICUBIC,
        bicubic_coefficient=coefficient,
        antialias=antialias,
        align_corners=align_corners,
        multiple=14,
        padding=7,
    )
    image = np.random.default_rng(5).choice(np.array([0, 100, 255], np.uint8), (45, 131, 3))  # clips at both ends
    for target, fit in (((28, 42), "letterbox"), ((112, 98), "stretch"), ((14, 98), "crop")):
        placement = place((45, 131), target, fit, resampling)
        np.testing.assert_array_equal(preprocess_shim.run(image, placement), specification(image, placement))


@pytest.mark.parametrize("padding", [0, 1, 64])
def test_bgr_frames_with_a_pitch_equal_pillow(preprocess_shim, padding):
    image = photograph(90, 120, seed=1)
    placement = place((90, 120), (48, 48), "letterbox")
    got = preprocess_shim.run(image[..., ::-1], placement, PixelFormat.BGR, padding=padding)
    np.testing.assert_array_equal(got, fit_image(image, placement))


WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def yuv_to_rgb(y, u, v, standard):
    """Convert in float64 by the definition of YCbCr (ITU-R BT.601, BT.709)."""
    name, scaling = standard.value.split("-")
    red, blue = WEIGHTS[name]
    y, u, v = (plane.astype(np.float64) - offset for plane, offset in ((y, 0), (u, 128), (v, 128)))
    if scaling == "limited":
        y, u, v = np.maximum(y - 16, 0) * 255 / 219, u * 255 / 224, v * 255 / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.round(np.stack([r, g, b], -1)), 0, 255)


def assert_same_colours(got, expected, standard):
    # Coefficients have three decimals (BT.601 limited) or 20 bits: only values close to .5 round differently.
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < (0.1 if standard is YuvStandard.BT601_LIMITED else 1e-3)


@pytest.mark.parametrize("standard", YuvStandard)
def test_nv12_frames_become_rgb(preprocess_shim, standard):
    rng = np.random.default_rng(2)
    luma, chroma = rng.integers(0, 256, (64, 48), np.uint8), rng.integers(0, 256, (32, 24, 2), np.uint8)
    placement = place((64, 48), (64, 48), "stretch")
    got = preprocess_shim.run(luma, placement, PixelFormat.NV12, chroma=chroma, yuv=standard, padding=16)
    u, v = (chroma[..., i].repeat(2, 0).repeat(2, 1) for i in (0, 1))
    assert_same_colours(got, yuv_to_rgb(luma, u, v, standard), standard)
    if native.is_available():
        matrix, scaling = standard.value.split("-")
        frame = np.concatenate([luma, chroma.reshape(32, 48)])
        cpu = native.Resizer((64, 48), (64, 48), pixel_format="nv12", matrix=matrix, full_range=scaling == "full")
        np.testing.assert_array_equal(got, cpu.resize(frame))


def test_yuyv_frames_become_rgb(preprocess_shim):
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (32, 24, 4), np.uint8)
    got = preprocess_shim.run(pixels, place((32, 48), (32, 48), "stretch"), PixelFormat.YUYV)
    luma, u, v = pixels[..., ::2].reshape(32, 48), pixels[..., 1].repeat(2, 1), pixels[..., 3].repeat(2, 1)
    assert_same_colours(got, yuv_to_rgb(luma, u, v, YuvStandard.BT601_LIMITED), YuvStandard.BT601_LIMITED)


def test_grey_frames_have_three_equal_channels(preprocess_shim):
    image, placement = photograph(60, 50)[..., 0], place((60, 50), (32, 32), "crop")
    got = preprocess_shim.run(image, placement, PixelFormat.GREY)
    np.testing.assert_array_equal(got, fit_image(image[..., None].repeat(3, 2), placement))


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
def test_nv12_frames_are_converted_before_they_are_resized(preprocess_shim, fit):
    rng = np.random.default_rng(3)
    luma, chroma = rng.integers(16, 236, (66, 90), np.uint8), rng.integers(90, 160, (33, 45, 2), np.uint8)
    whole = preprocess_shim.run(luma, place((66, 90), (66, 90), "stretch"), PixelFormat.NV12, chroma=chroma)
    placement = place((66, 90), (28, 28), fit)
    got = preprocess_shim.run(luma, placement, PixelFormat.NV12, chroma=chroma)
    np.testing.assert_array_equal(got, fit_image(whole, placement))


def test_the_fill_colour_surrounds_a_letterbox(preprocess_shim):
    image = photograph(20, 60)
    got = preprocess_shim.run(image, place((20, 60), (48, 48), "letterbox"), fill=(1, 2, 3))
    assert (got[:16] == [1, 2, 3]).all()
    assert (got[32:] == [1, 2, 3]).all()


@pytest.mark.parametrize("order", [1, 2])
def test_the_order_of_threads_does_not_change_a_bit(preprocess_shim, order):
    image, placement = photograph(200, 90), place((200, 90), (28, 42), "crop")
    np.testing.assert_array_equal(
        preprocess_shim.run(image, placement, order=order), preprocess_shim.run(image, placement)
    )


def test_every_removed_barrier_is_caught(preprocess_shim):
    image, placement = photograph(333, 40), place((333, 40), (32, 32), "stretch")  # three bands
    preprocess_shim.run(image, placement)
    barriers = preprocess_shim.executed_barriers()
    assert len(barriers) == 2
    for barrier in barriers:
        with pytest.raises(RuntimeError, match=r"shared memory at byte .* (race|reads what nobody wrote)"):
            preprocess_shim.run(image, placement, dropped_barrier=barrier)


def test_the_structure_has_the_kernels_layout(preprocess_shim):
    assert ctypes.sizeof(PreprocessParams) == preprocess_shim.library.shim_sizeof_params()


def test_a_launch_covers_the_target():
    placement = place((480, 640), (100, 70), "stretch")
    plan = plan_preprocess(preprocess_params(DeviceFrame(1, 1920), placement, 1, 1, 1))
    assert plan.grid == (3, 7, 1)
    assert plan.block_threads == 256


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (DeviceFrame(0, 99), UsageError, "address is 0"),
        (DeviceFrame(1, 98), UsageError, "99 bytes do not fit a pitch of 98"),
        (DeviceFrame(1, 33, PixelFormat.NV12), UsageError, "both its planes"),
        (DeviceFrame(1, 33, PixelFormat.NV12, 1, 34), ImageError, "odd side"),
        (DeviceFrame(1, 66, PixelFormat.YUYV), ImageError, "YUYV pairs"),
    ],
)
def test_frames_that_do_not_fit_are_refused(frame, error, message):
    with pytest.raises(error, match=message):
        preprocess_params(frame, place((33, 33), (32, 32), "stretch"), 1, 1, 1)


def test_tables_follow_the_placement():
    columns, rows = resize_tables(place((100, 200), (32, 32), "letterbox"))
    assert (len(columns.firsts), len(rows.firsts)) == (32, 16)
    assert len(columns.packed()) == 2 * 32 + columns.weights.size
