"""The tables of taps, and the resampling computed from them, against Pillow, torch and Keys' definition."""

from __future__ import annotations

import math
import platform

import numpy as np
import pytest
from PIL import Image

from mvde.contract import Interpolation, PreprocessRecord
from mvde.errors import UsageError
from mvde.resampling import Resampling, most_taps, resample, resample_depth, resize_table
from mvde.runtime.placement import fit_image, has_bars, place

BILINEAR, BICUBIC = Interpolation.BILINEAR, Interpolation.BICUBIC
EVERY = [
    Resampling(
        interpolation=BILINEAR if coefficient is None else BICUBIC,
        bicubic_coefficient=coefficient,
        antialias=antialias,
        align_corners=align_corners,
    )
    for coefficient in (None, -0.5, -0.75)
    for antialias, align_corners in ((True, False), (False, False), (False, True))
]
# torch has one coefficient with and one without antialiasing.
TORCHS = [one for one in EVERY if one.bicubic_coefficient in (None, -0.5 if one.antialias else -0.75)]
SIZES = [((40, 60), (33, 77)), ((200, 300), (28, 42)), ((37, 500), (64, 80)), ((1, 1), (5, 5)), ((7, 5), (1, 1))]


def resized(image: np.ndarray, size: tuple[int, int], resampling: Resampling) -> np.ndarray:
    across = resample(image, resize_table(image.shape[1], size[1], resampling), axis=1)
    return resample(across, resize_table(image.shape[0], size[0], resampling), axis=0)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("kernel", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_antialiasing_has_the_bits_of_pillow(
    kernel: Image.Resampling, source: tuple[int, int], target: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).choice(np.array([0, 128, 255], np.uint8), (*source, 3))  # clips at both ends
    is_bicubic = kernel is Image.Resampling.BICUBIC
    resampling = Resampling(
        interpolation=BICUBIC if is_bicubic else BILINEAR, bicubic_coefficient=-0.5 if is_bicubic else None
    )
    across = Image.fromarray(image).resize((target[1], source[0]), kernel)
    expected = np.asarray(across.resize((target[1], target[0]), kernel))
    np.testing.assert_array_equal(resized(image, target, resampling), expected)


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("resampling", TORCHS, ids=repr)
def test_each_way_is_torchs_within_the_rounding_of_two_passes(
    resampling: Resampling, source: tuple[int, int], target: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    # Between 64 and 191 no kernel overshoots the range of bytes, which the passes clip to and torch's floats do not.
    image = np.random.default_rng(1).integers(64, 192, (*source, 3), dtype=np.uint8)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        size=target,
        mode=resampling.interpolation.value,
        antialias=resampling.antialias,
        align_corners=resampling.align_corners,
    )
    difference = np.abs(resized(image, target, resampling) - expected[0].permute(1, 2, 0).numpy())
    assert difference.max() <= 1.3  # each pass rounds by half a level, the first one's error grows by up to 1.4
    assert difference.mean() <= 0.4


@pytest.mark.parametrize("size", [(400, 600), (108, 192), (90, 61)])
def test_keep_aspect_bicubic_has_the_bits_of_transformers_processor(size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, "DPTImageProcessorPil", None) or transformers.DPTImageProcessor
    whole = {"keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3}
    process = processor(size={"height": 126, "width": 126}, do_rescale=False, do_normalize=False, **whole)
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = np.asarray(process(images=image, return_tensors="np")["pixel_values"])[0].transpose(1, 2, 0)
    resampling = Resampling(interpolation=BICUBIC, bicubic_coefficient=-0.5, multiple=14)
    placement = place(size, expected.shape[:2], "letterbox", resampling)
    assert not has_bars(placement)
    # Pillow resizes along x first, unless Pillow 13 finds y cheaper.
    assert np.abs(fit_image(image, placement) - expected.astype(int)).max() <= 1


def keys(x: float, a: float) -> float:
    """Cubic convolution kernel of Keys (1981), equation 4."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("a", [-0.5, -0.75])
def test_bicubic_weights_are_keys_with_a_replicated_border(a: float) -> None:
    resampling = Resampling(interpolation=BICUBIC, bicubic_coefficient=a, antialias=False)
    table = resize_table(9, 20, resampling)
    for target in range(20):
        centre = (target + 0.5) * 9 / 20 - 0.5
        expected = np.zeros(9)
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            expected[min(max(tap, 0), 8)] += keys(tap - centre, a)
        dense = np.zeros(9)
        first, count = table.firsts[target], table.counts[target]
        dense[first : first + count] = table.weights[target, :count] / (1 << 22)
        np.testing.assert_allclose(dense, expected, atol=1e-6)


@pytest.mark.parametrize("resampling", EVERY, ids=repr)
@pytest.mark.parametrize("sizes", [(7, 7), (7, 100), (100, 7), (640, 224), (31, 1), (1, 31), (2, 3)])
def test_taps_are_inside_and_in_order_and_keep_a_constant_image(sizes: tuple[int, int], resampling: Resampling) -> None:
    source, target = sizes
    table = resize_table(source, target, resampling)
    ends = table.firsts + table.counts
    assert table.weights.shape == (target, most_taps(source, target, resampling))
    assert (table.counts >= 1).all()
    assert (table.counts <= table.weights.shape[1]).all()
    assert table.firsts.min() >= 0
    assert ends.max() <= source
    assert (np.diff(table.firsts) >= 0).all()  # the CUDA kernel reads the rows between the first and the last
    assert (np.diff(ends) >= 0).all()
    white = np.full((source, 1), 255, np.uint8)
    assert (resample(white, table, axis=0) == 255).all()
    sums = np.abs(table.weights.astype(np.int64)).sum(1) * 255 + (1 << 21)
    assert sums.max() < 1 << 31  # 32-bit accumulators cannot overflow


@pytest.mark.parametrize("resampling", EVERY, ids=repr)
def test_an_image_of_the_same_size_is_untouched(resampling: Resampling) -> None:
    image = np.random.default_rng(2).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resized(image, (13, 17), resampling), image)


def test_a_manifests_record_becomes_resampling() -> None:
    record = PreprocessRecord(
        fit="letterbox",
        multiple=14,
        interpolation=BICUBIC,
        antialias=False,
        padding=0,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        pixel_range=1,
        colour="RGB",
        bicubic_coefficient=-0.75,
        align_corners=True,
    )
    assert Resampling.of(record) == Resampling(
        interpolation=BICUBIC,
        antialias=False,
        bicubic_coefficient=-0.75,
        align_corners=True,
        multiple=14,
        padding=0,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"interpolation": BICUBIC}, r"coefficient is None, but bicubic resampling takes -0.5 or -0.75"),
        ({"interpolation": BICUBIC, "bicubic_coefficient": -0.6}, "-0.5 or -0.75"),
        ({"bicubic_coefficient": -0.5}, "bilinear resampling takes None"),
        ({"align_corners": True}, "without antialiasing only"),
        ({"multiple": 0}, "sides of 0 pixels"),
        ({"padding": 256}, "padding of 256"),
    ],
)
def test_what_no_resizer_does_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Resampling(**values)


def test_sides_without_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match="a side of 0 pixels"):
        resize_table(0, 4)


def pillows(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow's bilinear resize of a float plane, along x, then along y."""
    across = Image.fromarray(plane.astype(np.float32)).resize((size[1], plane.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(across.resize((size[1], size[0]), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_depth_without_holes_has_the_bits_of_pillow(source: tuple[int, int], target: tuple[int, int]) -> None:
    depth = np.random.default_rng(1).uniform(0.1, 80, source).astype(np.float32)
    resized, expected = resample_depth(depth, target, np.nan), pillows(depth, target)
    if platform.machine() == "x86_64":
        np.testing.assert_array_equal(resized, expected)
    else:  # Pillow's wheel for ARM fuses multiplications with additions: a rounding of each of the two passes
        np.testing.assert_array_max_ulp(resized, expected, maxulp=2)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_depth_is_the_mean_of_the_neighbours_that_have_it(
    source: tuple[int, int], target: tuple[int, int], share: float
) -> None:
    """The mean is the quotient of two of Pillow's resizes: of depth with 0 in the holes, and of the mask."""
    rng = np.random.default_rng(2)
    depth = rng.uniform(0.1, 80, source).astype(np.float32)
    hole = rng.uniform(size=source) < share
    depth[hole] = rng.choice(np.array([np.nan, np.nan, np.inf, np.inf, -np.inf], np.float32), hole.sum())
    got = resample_depth(depth, target, np.nan)
    weight, far = pillows(~hole, target), pillows(np.isposinf(depth), target)
    clear = (np.abs(weight - 0.5) > 1e-5) & (np.abs(2 * far + weight - 1) > 1e-5)  # not within rounding of a decision
    seen, sky = clear & (weight > 0.5), clear & (weight < 0.5) & (2 * far > 1 - weight)
    sums = pillows(np.where(hole, 0, depth), target)
    np.testing.assert_allclose(got[seen], sums[seen] / weight[seen], rtol=1e-5)
    assert np.isposinf(got[sky]).all()
    assert np.isnan(got[clear & ~seen & ~sky]).all()


def test_the_edge_of_a_hole_lies_between_pixels_and_keeps_their_depth() -> None:
    nan, inf = np.nan, np.inf
    row = np.array([[2, nan, nan, inf, inf, 6]], np.float32)
    expected = [[2, 2, nan, nan, nan, nan, inf, inf, inf, inf, 6, 6]]
    np.testing.assert_array_equal(resample_depth(row, (1, 12), nan), np.array(expected, np.float32))
    np.testing.assert_array_equal(resample_depth(row, (1, 12), 0.0), [[2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 6, 6]])
    np.testing.assert_array_equal(resample_depth(row, (1, 6), nan), row)
    # A pixel of which exactly half is a hole has depth.
    np.testing.assert_array_equal(resample_depth(row[:, [0, 1]], (1, 1), nan), [[2]])


@pytest.mark.parametrize("target", [(96, 96), (480, 640), (97, 301), (20, 24)])
def test_a_hole_keeps_its_share_of_the_picture(target: tuple[int, int]) -> None:
    y, x = np.mgrid[:48, :64]
    depth = np.where((x - 30) ** 2 + (y - 20) ** 2 < 15**2, np.nan, 3).astype(np.float32)
    mapped = resample_depth(depth, target, np.nan)
    np.testing.assert_allclose(mapped[~np.isnan(mapped)], 3, rtol=2e-7)
    assert abs(np.isnan(mapped).mean() - np.isnan(depth).mean()) < 0.01


def test_zero_is_a_value_of_an_inverse_map_and_no_hole() -> None:
    row = np.array([[0, 4, math.nan, 4]], np.float32)
    expected = [[0, 1, 3, 4, math.nan, math.nan, 4, 4]]
    np.testing.assert_array_equal(resample_depth(row, (1, 8), math.nan), np.array(expected, np.float32))
