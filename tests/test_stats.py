"""Patch statistics against an independent per-pixel loop in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvde.errors import ResolutionError, UsageError
from mvde.stats import DEFAULT_STATS, STATS, depth_to_patch_stats, numpy_patch_stats

SPECIAL = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e-42, 1e-30, 60.0, 1e4], np.float32)


def reference_patch_stats(depth, patch_size, min_depth=0.0, max_depth=math.inf):
    """All six statistics, computed pixel by pixel with correctly rounded sums."""
    batch, height, width = depth.shape
    lower, upper = (float(np.asarray(bound, depth.dtype)) for bound in (min_depth, max_depth))
    rows = []
    for image in depth.astype(np.float64).tolist():
        for top in range(0, height, patch_size):
            for left in range(0, width, patch_size):
                rows.append(_reference_patch(image, top, left, patch_size, lower, upper))
    return np.array(rows, np.float64).reshape(batch, -1, 6)


def _reference_patch(image, top, left, patch_size, lower, upper):
    height, width = len(image), len(image[0])

    def at(y, x):
        value = image[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)]
        return value if math.isfinite(value) and value > 0 and lower <= value <= upper else None

    def difference(a, b):
        return 0.0 if a is None or b is None else (a - b) / 2

    values, slopes = [], []
    for y in range(top, top + patch_size):
        for x in range(left, left + patch_size):
            if at(y, x) is not None:
                values.append(at(y, x))
                slopes.append(
                    math.hypot(difference(at(y, x + 1), at(y, x - 1)), difference(at(y + 1, x), at(y - 1, x)))
                )
    if not values:
        return [0.0] * 6
    mean = math.fsum(values) / len(values)
    var = math.fsum((value - mean) ** 2 for value in values) / len(values)
    grad = math.fsum(slopes) / len(slopes)
    return [mean, var, grad, min(values), max(values), len(values) / patch_size**2]


@st.composite
def depth_maps(draw, dtypes=(np.float16, np.float32, np.float64)):
    patch_size = draw(st.sampled_from([1, 2, 3, 7, 14, 16]))
    batch, rows, columns = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (batch, rows * patch_size, columns * patch_size)
    offset, spread = draw(st.sampled_from([(0.0, 8.0), (2.0, 0.0), (1.0, 0.01), (1e4, 0.01)]))
    depth = (offset + spread * rng.random(shape)).astype(draw(st.sampled_from(dtypes)))
    special = rng.random(shape) < draw(st.sampled_from([0.0, 0.0, 0.05, 0.6, 1.0]))
    with np.errstate(over="ignore"):
        depth[special] = rng.choice(SPECIAL, int(special.sum()))
    return depth, patch_size


def assert_stats_close(got, expected, relative, depth):
    # Errors scale with the terms summed: depths for the mean, deviations for the variance, differences for the slope.
    # The absolute terms are the square of the smallest normal float32 and one rounding of the largest depth.
    finite = depth[np.isfinite(depth) & (depth > 0)].astype(np.float64)
    scale = float(finite.max(initial=0.0))
    assert got.dtype == np.float32
    # libmvde's second pass over a mean sums deviations of both signs, at most 2 (mean - min) per pixel; its up
    # to 37 roundings form a random walk, sqrt(37) * 2^-24 = 3.6e-7, visible where one far pixel dominates the patch.
    walk = 3.6e-7 * 2 * (expected[..., 0] - expected[..., 3])
    off = np.abs(got[..., 0].astype(np.float64) - expected[..., 0])
    np.testing.assert_array_less(off, relative * np.abs(expected[..., 0]) + walk + 1e-38)
    np.testing.assert_allclose(got[..., 1], expected[..., 1], rtol=4 * relative, atol=(relative * scale) ** 2 + 1e-38)
    np.testing.assert_allclose(got[..., 2], expected[..., 2], rtol=4 * relative, atol=1e-22)
    np.testing.assert_allclose(got[..., 3:], expected[..., 3:], rtol=1.3e-7, atol=1e-44)


@settings(max_examples=120, deadline=None)
@given(depth_maps(), st.sampled_from([(None, None), (0.7, None), (None, 5.0), (0.7, 5.0)]))
def test_numpy_matches_a_plain_loop(case, bounds):
    depth, patch_size = case
    expected = reference_patch_stats(depth, patch_size, bounds[0] or 0.0, bounds[1] or math.inf)
    for function in (numpy_patch_stats, depth_to_patch_stats):
        got = function(depth, patch_size, STATS, min_depth=bounds[0], max_depth=bounds[1])
        assert_stats_close(got, expected, 2.5e-7, depth)


@settings(max_examples=80, deadline=None)
@given(depth_maps(), st.sampled_from([(None, None), (0.7, 5.0)]))
def test_torch_matches_a_plain_loop(case, bounds):
    torch = pytest.importorskip("torch")
    depth, patch_size = case
    expected = reference_patch_stats(depth, patch_size, bounds[0] or 0.0, bounds[1] or math.inf)
    got = depth_to_patch_stats(torch.from_numpy(depth), patch_size, STATS, min_depth=bounds[0], max_depth=bounds[1])
    assert_stats_close(got.numpy(), expected, 1e-6, depth)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_millimetres_survive_an_offset_of_ten_kilometres(backend):
    rng = np.random.default_rng(3)
    depth = (1e4 + rng.integers(0, 8, (1, 64, 64)) * 2.0**-9).astype(np.float32)  # about 2 mm, exact in float32
    expected = depth.astype(np.float64).reshape(4, 16, 4, 16).transpose(0, 2, 1, 3).reshape(16, 256).var(-1)
    if backend == "torch":
        torch = pytest.importorskip("torch")
        var = depth_to_patch_stats(torch.from_numpy(depth), 16, ("var",)).numpy()[0, :, 0]
    else:
        var = depth_to_patch_stats(depth, 16, ("var",))[0, :, 0]
    assert expected.min() > 1e-6
    np.testing.assert_allclose(var, expected, rtol=1e-5)


def test_a_plane_has_its_analytic_slope_away_from_the_border():
    y, x = np.mgrid[0:56, 0:70]
    stats = depth_to_patch_stats((5 + 0.03 * x + 0.04 * y)[None].astype(np.float32), 14)
    inner = stats[0, :, 2].reshape(4, 5)[1:-1, 1:-1]
    np.testing.assert_allclose(inner, 0.05, rtol=1e-5)


def test_a_step_between_two_patches_is_seen_from_both():
    depth = np.ones((1, 4, 8), np.float32)
    depth[:, :, 4:] = 3.0
    np.testing.assert_allclose(depth_to_patch_stats(depth, 4, ("grad",))[0, :, 0], [1 / 4, 1 / 4])


def test_a_depth_clamped_to_a_bound_stays_valid():
    depth = np.full((1, 4, 4), 0.7, np.float32)  # rounds to less than 0.7
    assert depth_to_patch_stats(depth, 4, ("valid",), min_depth=0.7)[0, 0, 0] == 1.0
    half = np.full((1, 4, 4), 10.1, np.float16)  # rounds to more than 10.1
    assert depth_to_patch_stats(half, 4, ("valid",), max_depth=10.1)[0, 0, 0] == 1.0


def test_columns_follow_the_order_asked_for():
    depth = np.random.default_rng(0).random((2, 8, 8), np.float32) + 1
    every = depth_to_patch_stats(depth, 4, STATS)
    some = depth_to_patch_stats(depth, 4, ("valid", "var", "mean"))
    np.testing.assert_array_equal(some, every[..., [5, 1, 0]])
    np.testing.assert_array_equal(depth_to_patch_stats(depth, 4), every[..., :3])
    assert DEFAULT_STATS == ("mean", "var", "grad")


def test_patches_come_in_row_major_order():
    depth = np.arange(1.0, 7.0).reshape(1, 2, 3).repeat(4, 1).repeat(4, 2)
    np.testing.assert_array_equal(depth_to_patch_stats(depth, 4, ("mean",))[0, :, 0], np.arange(1, 7))


def test_a_view_gives_the_same_as_its_copy():
    depth = np.random.default_rng(1).random((2, 40, 96), np.float32)[:, ::-1, ::3]
    np.testing.assert_array_equal(depth_to_patch_stats(depth, 8, STATS), depth_to_patch_stats(depth.copy(), 8, STATS))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_pixels_are_invalid(dtype):
    depth = np.arange(1, 65, dtype=dtype).reshape(1, 8, 8)
    mask = np.arange(64).reshape(1, 8, 8) % 5 == 0
    expected = depth_to_patch_stats(np.where(mask, 0, depth), 4, STATS)
    masked = np.ma.masked_array(depth, mask)
    np.testing.assert_array_equal(depth_to_patch_stats(masked, 4, STATS), expected)
    assert masked.mask.sum() == mask.sum()
    assert not np.array_equal(depth_to_patch_stats(depth, 4, STATS), expected)


def test_the_input_is_left_alone():
    depth = np.full((1, 4, 4), np.nan, np.float32)
    depth_to_patch_stats(depth, 4)
    assert np.isnan(depth).all()


@pytest.mark.parametrize("case", ["smooth", "with invalid pixels", "constant"])
def test_torch_gradients_are_right(case):
    torch = pytest.importorskip("torch")
    from mvde.stats import _Bounds, _torch_patch_stats

    torch.manual_seed(0)
    depth = 1 + torch.rand(2, 6, 9, dtype=torch.float64)
    if case == "with invalid pixels":
        depth[0, 1, 2], depth[0, 4, 4], depth[1, :3, :3] = math.nan, -1.0, math.inf
    if case == "constant":
        depth = torch.full_like(depth, 2.0).requires_grad_()
        depth_to_patch_stats(depth, 3, STATS).sum().backward()
        assert torch.isfinite(depth.grad).all()
        return
    invalid = ~(torch.isfinite(depth) & (depth > 0))

    def stats_of(values):  # gradcheck perturbs its input, so invalid pixels are inserted here
        values = torch.where(invalid, depth, values)
        return _torch_patch_stats(values, 3, STATS, _Bounds(0.0, torch.finfo(torch.float64).max))

    assert torch.autograd.gradcheck(stats_of, (torch.where(invalid, 1.5, depth).requires_grad_(),))


def test_gradients_of_invalid_pixels_are_zero_and_finite():
    torch = pytest.importorskip("torch")
    depth = torch.tensor([[[1.0, math.nan], [2.0, math.inf]]], requires_grad=True)
    depth_to_patch_stats(depth, 2, STATS).sum().backward()
    assert torch.isfinite(depth.grad).all()
    assert (depth.grad[0, :, 1] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_torch_gives_float32_for_every_precision(dtype):
    torch = pytest.importorskip("torch")
    assert depth_to_patch_stats(torch.ones(1, 4, 4, dtype=getattr(torch, dtype)), 2).dtype is torch.float32


@pytest.mark.parametrize(
    ("depth", "patch_size", "options", "error", "message"),
    [
        (np.ones((1, 30, 50)), 16, {}, ResolutionError, "30x50.*H 16 or 32 and W 48 or 64"),
        (np.ones((1, 32, 50)), 16, {}, ResolutionError, "H 32 and W 48 or 64"),
        (np.ones((1, 5, 0)), 16, {}, ResolutionError, "H 16 and W 16"),
        (np.ones((4, 4)), 4, {}, UsageError, r"shape \(4, 4\).*depth\[None\]"),
        ([[[1.0]]], 1, {}, UsageError, "a list"),
        (np.ones((1, 4, 4), np.uint16), 4, {}, UsageError, "uint16.*millimetres"),
        (np.ones((1, 4, 4)), 0, {}, UsageError, "patch_size is 0"),
        (np.ones((1, 4, 4)), 4.0, {}, UsageError, "patch_size is 4.0"),
        (np.ones((1, 4, 4)), 4, {"stats": ("mean", "median")}, UsageError, "'median'.*mean, var, grad"),
        (np.ones((1, 4, 4)), 4, {"stats": "mean"}, UsageError, "'mean': expected a sequence"),
        (np.ones((1, 4, 4)), 4, {"stats": ()}, UsageError, "expected a sequence"),
        (np.ones((1, 4, 4)), 4, {"min_depth": 5.0, "max_depth": 1.0}, UsageError, "min_depth 5.0"),
        (np.ones((1, 4, 4)), 4, {"max_depth": math.nan}, UsageError, "max_depth nan"),
    ],
)
def test_bad_input_is_one_clear_error(depth, patch_size, options, error, message):
    with pytest.raises(error, match=message):
        depth_to_patch_stats(depth, patch_size, **options)


def test_an_integer_tensor_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match="int32"):
        depth_to_patch_stats(torch.ones(1, 4, 4, dtype=torch.int32), 4)


class Exchanged:
    """Array of another library: shape, dtype and DLPack only."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    ("depth", "options", "message"),
    [
        (Exchanged(np.ones((1, 4, 4), np.float32)), {}, r"a Exchanged: expected an array of NumPy.*np\.from_dlpack"),
        (np.ones((1, 4, 4)), {"stats": None}, "stats has None: expected a sequence.*leave it out for mean, var, grad"),
        (np.ones((1, 4, 4)), {"stats": 3}, "stats has 3: expected a sequence"),
        (np.ones((1, 4, 4)), {"stats": [["mean"]]}, r"stats has \['mean'\]: expected a sequence"),
        (np.ones((1, 4, 4)), {"min_depth": "near"}, "min_depth near"),
        (np.ones((1, 4, 4)), {"max_depth": np.ones(2)}, r"max_depth \[1. 1.\]"),
    ],
)
def test_input_of_another_kind_is_one_sentence(depth, options, message):
    with pytest.raises(UsageError, match=message):
        depth_to_patch_stats(depth, 4, **options)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        ("to_sparse", r"a sparse_coo tensor: expected a dense one.*to_dense\(\)"),
        ("float8_e4m3fn", r"float8_e4m3fn: expected floating-point metres in float16.*depth\.float\(\)"),
        ("complex64", "complex64: expected floating-point"),
        ("nested", "a nested tensor: expected a dense one"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_tensor_of_another_kind_is_one_sentence(convert, message):
    torch = pytest.importorskip("torch")
    depth = torch.ones(1, 4, 4)
    if convert == "nested":
        depth = torch.nested.nested_tensor([depth[0]])
    else:
        depth = depth.to_sparse() if convert == "to_sparse" else depth.to(getattr(torch, convert))
    with pytest.raises(UsageError, match=message):
        depth_to_patch_stats(depth, 4)


def test_an_empty_batch_has_no_rows_in_torch_either():
    torch = pytest.importorskip("torch")
    assert depth_to_patch_stats(np.ones((0, 8, 4), np.float32), 4).shape == (0, 2, 3)
    depth = torch.ones(0, 8, 4, requires_grad=True)
    stats = depth_to_patch_stats(depth, 4, STATS)
    assert stats.shape == (0, 2, 6)
    stats.sum().backward()
    assert depth.grad.shape == (0, 8, 4)


@pytest.mark.parametrize("implementation", ["numpy", "libmvde", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_depths_whose_squares_overflow_are_invalid_and_the_largest_are_finite(implementation, dtype):
    depth = np.full((1, 32, 16), 1e16, dtype)
    depth[0, :16, ::2], depth[0, :4] = 1.0, 1e38
    depth[0, 16:] = np.nextafter(depth[0, 16:], np.inf)
    match implementation:
        case "numpy":
            stats = numpy_patch_stats(depth, 16, STATS)
        case "libmvde":
            stats = depth_to_patch_stats(depth, 16, STATS)
        case "torch":
            torch = pytest.importorskip("torch")
            stats = depth_to_patch_stats(torch.from_numpy(depth), 16, STATS).numpy()
    assert np.isfinite(stats).all()
    np.testing.assert_allclose(stats[0, 0, [0, 1, 3, 4, 5]], [5e15, 2.5e31, 1.0, 1e16, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(stats[0, 1], np.zeros(6))


def test_a_bound_beyond_the_largest_depth_leaves_none():
    with pytest.raises(UsageError, match=r"min_depth 1e\+17.*below 1e\+16"):
        depth_to_patch_stats(np.ones((1, 4, 4), np.float32), 4, min_depth=1e17)
