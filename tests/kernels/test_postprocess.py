"""The post-processing kernel's CUDA source, run on the CPU, against the NumPy reference."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvde.cuda.postprocess import (
    RAW_DTYPES,
    Conversion,
    DepthFormat,
    DepthRange,
    DeviceMap,
    PostprocessOptions,
    PostprocessParams,
    numpy_depth,
    plan_postprocess,
    postprocess_params,
)
from mvde.errors import ResolutionError, UsageError
from mvde.stats import STATS, numpy_patch_stats

SPECIAL = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e-42, 1e-30, 60.0, 1e4, 1e15], np.float32)


def raw_map(rng, shape, offset=0.0, spread=8.0, special=0.0):
    raw = (offset + spread * rng.random(shape)).astype(np.float32)
    chosen = rng.random(shape) < special
    raw[chosen] = rng.choice(SPECIAL, int(chosen.sum()))
    return raw


WALK_REL = 3.6e-7
"""Relative rounding error of a sum of up to 37 terms with random roundings: sqrt(37) * 2^-24."""
ALIKE_WALK_REL = 37 * 2.0**-24
"""The same if all ordinary pixels are equal: every addition rounds the same way, and errors do not cancel."""


def assert_stats_close(got, expected, depth, patch_size, walk_rel=WALK_REL):
    # Two float32 roundings for a mean (1.2e-7 each) and four for a mean of squares or roots, over one chunk of the
    # patch; merging chunks adds one each. The absolute term of the slope covers underflowing squares. The mean's second
    # pass sums deviations of both signs, at most 2 (mean - min) per pixel in total; its up to 37 roundings are the
    # random walk, which matters if one far pixel outweighs all others.
    walk = walk_rel * 2 * (expected[..., 0] - expected[..., 3])
    excess = np.abs(got[..., 0].astype(np.float64) - expected[..., 0]) - walk
    np.testing.assert_array_less(excess, 2.4e-7 * np.abs(expected[..., 0]) + 1e-44)
    largest = float(np.nanmax(np.where(np.isfinite(depth), depth, np.nan), initial=0.0))
    # The same holds for a sum of squares dominated by a few far pixels: each of the up to 37 later additions rounds at
    # its magnitude. Maxima: 7.7e-7 in 147,000 patches of 17 pixels with one far pixel, 7.3e-7 in 32x32 with four.
    far = np.maximum(expected[..., 4] - expected[..., 0], expected[..., 0] - expected[..., 3]).astype(np.float64) ** 2
    num_pixels = np.maximum(expected[..., 5] * patch_size**2, 1)
    is_made_by_few = far / num_pixels > expected[..., 1] / 37
    allowed = (6e-7 + WALK_REL * is_made_by_few) * expected[..., 1] + (1e-7 * largest) ** 2
    assert (np.abs(got[..., 1].astype(np.float64) - expected[..., 1]) <= allowed).all()
    np.testing.assert_allclose(got[..., 2], expected[..., 2], rtol=6e-7, atol=1e-22)
    np.testing.assert_array_equal(got[..., 3:5], expected[..., 3:5])
    np.testing.assert_allclose(got[..., 5], expected[..., 5], rtol=1.2e-7)


@settings(max_examples=30, deadline=None)
@given(
    patch_size=st.sampled_from([1, 2, 3, 7, 8, 14, 16, 17, 32]),
    grid=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 10)),
    dtype=st.sampled_from(sorted(RAW_DTYPES)),
    values=st.sampled_from([(0.0, 8.0), (2.0, 0.0), (1.0, 0.01), (1e4, 0.01), (1e-41, 1e-40), (1e15, 1e15)]),
    special=st.sampled_from([0.0, 0.0, 0.05, 0.6, 1.0]),
    padding=st.tuples(st.sampled_from([0, 3, 8]), st.sampled_from([0, 5, 16]), st.sampled_from([0, 0, 1])),
    bounds=st.sampled_from([(0.0, math.inf), (0.7, math.inf), (0.0, 5.0), (0.7, 5.0)]),
    seed=st.integers(0, 2**16),
)
def test_statistics_match_the_specification(
    postprocess_shim, patch_size, grid, dtype, values, special, padding, bounds, seed
):
    batch, rows, columns = grid
    rng = np.random.default_rng(seed)
    raw = raw_map(rng, (batch, rows * patch_size, min(columns, 320 // patch_size) * patch_size), *values, special)
    options = PostprocessOptions(min_depth_m=bounds[0], max_depth_m=bounds[1])
    depth, got = postprocess_shim.run(
        raw,
        patch_size,
        options=options,
        dtype=dtype,
        depth_format=DepthFormat.METRES,
        row_padding=padding[0],
        image_padding=padding[1],
        shift_elements=padding[2],
        order=seed,
    )
    rounded = as_dtype(raw, dtype)
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(rounded) & (rounded > 0) & (rounded >= np.float32(bounds[0])) & (rounded <= bounds[1])
    np.testing.assert_array_equal(depth, np.where(valid, rounded, np.float32(math.nan)))
    walk_rel = ALIKE_WALK_REL if values[1] == 0.0 else WALK_REL
    assert_stats_close(got, numpy_patch_stats(depth, patch_size, STATS), depth, patch_size, walk_rel)


def as_dtype(values, dtype):
    if dtype == "bfloat16":
        return values.astype(pytest.importorskip("ml_dtypes").bfloat16).astype(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(dtype).astype(np.float32)


@pytest.mark.parametrize("patch_size", [33, 48, 130])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_patches_that_take_a_block_match_the_specification(postprocess_shim, patch_size, dtype):
    rng = np.random.default_rng(patch_size)
    raw = raw_map(rng, (1, patch_size, 2 * patch_size), 1.0, 8.0, 0.02)
    depth, got = postprocess_shim.run(raw, patch_size, dtype=dtype, depth_format=DepthFormat.METRES, order=7)
    assert_stats_close(got, numpy_patch_stats(depth, patch_size, STATS), depth, patch_size)


@pytest.mark.parametrize("patch_size", [16, 14, 40, 130])
def test_millimetres_survive_an_offset_of_ten_kilometres(postprocess_shim, patch_size):
    rng = np.random.default_rng(3)
    raw = (1e4 + rng.integers(0, 8, (1, patch_size, patch_size)) * 2.0**-9).astype(np.float32)  # exact in float32
    _, got = postprocess_shim.run(raw, patch_size, ("var", "grad"))
    assert got[0, 0, 0] > 1e-6
    np.testing.assert_allclose(got, numpy_patch_stats(raw, patch_size, ("var", "grad")), rtol=1e-6)


@pytest.mark.parametrize("patch_size", [8, 40])
def test_a_constant_plane_has_no_variance_and_no_slope(postprocess_shim, patch_size):
    raw = np.full((1, patch_size, 2 * patch_size), 0.1, np.float32)
    _, got = postprocess_shim.run(raw, patch_size)
    np.testing.assert_array_equal(got[0, 0], np.float32([0.1, 0, 0, 0.1, 0.1, 1]))


def test_a_plane_has_its_analytic_slope_away_from_the_border(postprocess_shim):
    y, x = np.mgrid[0:56, 0:70]
    _, got = postprocess_shim.run((5 + 0.03 * x + 0.04 * y)[None].astype(np.float32), 14, ("grad",))
    np.testing.assert_allclose(got.reshape(4, 5)[1:-1, 1:-1], 0.05, rtol=1e-5)


def test_half_precision_sums_do_not_overflow(postprocess_shim):
    raw = np.full((1, 16, 16), 60000.0, np.float32)  # a sum of two exceeds float16's 65504
    _, got = postprocess_shim.run(raw, 16, ("mean", "var", "valid"), dtype="float16")
    np.testing.assert_array_equal(got[0, 0], [60000.0, 0.0, 1.0])


def test_an_overflow_in_half_precision_is_invalid(postprocess_shim):
    raw = np.full((1, 16, 16), 70000.0, np.float32)
    raw[0, :4] = 2.0
    depth, got = postprocess_shim.run(raw, 16, ("mean", "valid"), dtype="float16", depth_format=DepthFormat.MILLIMETRES)
    np.testing.assert_array_equal(got[0, 0], [2.0, 0.25])
    assert (depth[0, :4] == 2000).all()
    assert (depth[0, 4:] == 0).all()


@pytest.mark.parametrize("stats", [("valid", "mean", "mean"), ("max",), tuple(reversed(STATS))])
def test_columns_follow_the_order_asked_for(postprocess_shim, stats):
    raw = raw_map(np.random.default_rng(5), (2, 16, 24), 1.0, 3.0, 0.1)
    _, every = postprocess_shim.run(raw, 8)
    _, some = postprocess_shim.run(raw, 8, stats)
    np.testing.assert_array_equal(some, every[..., [STATS.index(name) for name in stats]])


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("patch_size", [7, 16, 40])
def test_the_order_of_threads_does_not_change_a_bit(postprocess_shim, patch_size, order):
    raw = raw_map(np.random.default_rng(6), (1, patch_size, 3 * patch_size), 1.0, 3.0, 0.1)
    first, again = (postprocess_shim.run(raw, patch_size, depth_format=DepthFormat.METRES, order=o) for o in (0, order))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", [{}, {"row_padding": 1}, {"shift_elements": 1}, {"image_padding": 2}])
def test_alignment_does_not_change_a_bit(postprocess_shim, layout):
    raw = raw_map(np.random.default_rng(8), (2, 32, 80), 1.0, 3.0, 0.05)
    expected = postprocess_shim.run(raw, dtype="float16", depth_format=DepthFormat.METRES)
    got = postprocess_shim.run(raw, dtype="float16", depth_format=DepthFormat.METRES, **layout)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("depth_format", DepthFormat)
@pytest.mark.parametrize("depth_range", DepthRange)
@pytest.mark.parametrize("conversion", Conversion)
@pytest.mark.parametrize("stats", [(), ("mean", "valid")])
def test_every_conversion_gives_its_depth(postprocess_shim, conversion, depth_range, depth_format, stats):
    rng = np.random.default_rng(9)
    raw = (rng.standard_normal((2, 16, 37 if not stats else 48)) * 4).astype(np.float32)
    raw[0, 0, :6] = [math.nan, math.inf, -math.inf, 0.0, 80.0, -80.0]
    options = PostprocessOptions(conversion, 0.75, 0.125, depth_range, min_depth_m=0.2, max_depth_m=9.0, invalid_m=-1.0)
    depth, _ = postprocess_shim.run(raw, 16, stats, options, depth_format=depth_format)
    expected = numpy_depth(raw, options)
    # If depth is at a bound up to rounding, either result is correct.
    with np.errstate(invalid="ignore"):
        at_bound = np.minimum(np.abs(expected / 0.2 - 1), np.abs(expected / 9.0 - 1)) < 1e-5
    decided = ~at_bound | (depth_range is DepthRange.CLAMP)
    assert 0.2 < np.isfinite(expected).mean() < 1
    if depth_format is DepthFormat.METRES:
        # Both exponentials and the sigmoid between them are within 2 ulp; the outer one multiplies the relative error
        # of its argument by at most ln(max / min) = 3.8.
        np.testing.assert_allclose(depth[decided], np.nan_to_num(expected, nan=-1.0)[decided], rtol=1e-6)
    else:
        difference = depth.astype(np.float64) - np.nan_to_num(expected * 1000)
        assert np.abs(difference[decided]).max() <= 0.5 + 9000 * 1e-6


def test_the_metric_head_gives_the_depth_of_the_model(postprocess_shim):
    torch = pytest.importorskip("torch")
    from mvde.heads.dpt_decoder import MetricActivation

    raw = (np.random.default_rng(2).standard_normal((1, 16, 32)) * 5).astype(np.float32)
    expected = MetricActivation(0.1, 10.0)(torch.from_numpy(raw)).numpy()
    options = PostprocessOptions(Conversion.LOG_SIGMOID, min_depth_m=0.1, max_depth_m=10.0)
    depth, _ = postprocess_shim.run(raw, 16, ("mean",), options, depth_format=DepthFormat.METRES)
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


def test_millimetres_round_to_nearest_and_what_does_not_fit_is_invalid(postprocess_shim):
    raw = np.array([[[0.0004, 0.0006, 1.2344, 1.2346, 65.534, 65.5351, 65.536, 1e9]]], np.float32)
    depth, _ = postprocess_shim.run(raw, 1, (), depth_format=DepthFormat.MILLIMETRES)
    np.testing.assert_array_equal(depth[0, 0], [0, 1, 1234, 1235, 65534, 65535, 0, 0])


def test_depth_does_not_depend_on_whether_statistics_are_made(postprocess_shim):
    raw = raw_map(np.random.default_rng(4), (2, 32, 48), 0.0, 4.0, 0.1)
    options = PostprocessOptions(Conversion.INVERSE, 0.3, 0.01, DepthRange.CLAMP, 0.1, 50.0)
    alone, _ = postprocess_shim.run(raw, 16, (), options, depth_format=DepthFormat.METRES)
    fused, _ = postprocess_shim.run(raw, 16, STATS, options, depth_format=DepthFormat.METRES)
    np.testing.assert_array_equal(alone, fused)


@pytest.mark.parametrize(("patch_size", "num_barriers"), [(16, 1), (130, 5)])
def test_every_removed_barrier_is_caught(postprocess_shim, patch_size, num_barriers):
    """Each ``__syncthreads()`` is required, and the shim detects a missing one."""
    raw = raw_map(np.random.default_rng(1), (1, patch_size, patch_size), 1.0, 3.0)
    postprocess_shim.run(raw, patch_size)
    barriers = postprocess_shim.executed_barriers()
    assert len(barriers) == num_barriers
    for barrier in barriers:
        with pytest.raises(RuntimeError, match=r"shared memory at byte .* (race|reads what nobody wrote)"):
            postprocess_shim.run(raw, patch_size, dropped_barrier=barrier)


def test_an_access_outside_the_buffers_is_caught(postprocess_shim, guarded_memory):
    raw, stats = guarded_memory(16 * 16 * 4), guarded_memory(2 * 4)
    params = postprocess_params(
        DeviceMap(raw.address),
        (1, 32, 16),
        PostprocessOptions(),
        stats_address=stats.address,
        patch_size=16,
        stats=("mean",),
    )
    assert "outside the buffers" in postprocess_shim.error_of(params)


def test_the_structure_has_the_kernels_layout(postprocess_shim):
    assert ctypes.sizeof(PostprocessParams) == postprocess_shim.library.shim_sizeof_params()


class CPlan(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint) for name in ("grid_x", "grid_y", "grid_z", "block_threads", "shared_bytes", "per_block")
    )


@pytest.mark.parametrize("patch_size", [1, 2, 7, 14, 16, 17, 32, 33, 64, 200])
def test_both_sides_plan_the_same_launch(postprocess_shim, patch_size):
    for rows, columns in ((1, 1), (3, 9), (2, 17)):
        shape = (2, rows * patch_size, columns * patch_size)
        params = postprocess_params(DeviceMap(16), shape, PostprocessOptions(), stats_address=16, patch_size=patch_size)
        plan = plan_postprocess(params, "float16")
        expected = CPlan()
        postprocess_shim.library.shim_plan_postprocess(*shape, patch_size, ctypes.byref(expected))
        assert plan.grid == (expected.grid_x, expected.grid_y, expected.grid_z)
        assert (plan.block_threads, plan.shared_bytes) == (expected.block_threads, expected.shared_bytes)
        assert plan.kernel == f"mvde_postprocess_patch_per_{'block' if expected.per_block else 'warp'}_f16"
        assert plan.shared_bytes <= 48 * 1024  # available on every architecture without opting in


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_depth_m": 2.0, "max_depth_m": 1.0}, "min_depth_m 2.0"),
        ({"scale": math.nan}, "scale nan"),
        ({"conversion": Conversion.LOG_SIGMOID}, "positive and finite"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        PostprocessOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": (1, 30, 32)}, ResolutionError, "30x32.*32x32"),
        ({"shape": (0, 32, 32)}, UsageError, "batch is 0"),
        ({"shape": (1, 70000, 32)}, UsageError, "height is 70000"),
        ({"patch_size": 0}, UsageError, "patch_size is 0"),
        ({"stats": ("mean", "median")}, UsageError, "median"),
        ({"stats": "mean"}, UsageError, "names out of"),
        ({"stats_address": None}, UsageError, "neither"),
        ({"raw": DeviceMap(0)}, UsageError, "address is 0"),
        ({"raw": DeviceMap(16, 0, 31)}, UsageError, "overlap"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, message):
    given = {"raw": DeviceMap(16), "shape": (1, 32, 32), "stats_address": 16, "patch_size": 16} | arguments
    with pytest.raises(error, match=message):
        postprocess_params(given.pop("raw"), given.pop("shape"), PostprocessOptions(), **given)


def test_raw_values_of_another_dtype_are_refused():
    params = postprocess_params(DeviceMap(16), (1, 16, 16), PostprocessOptions(), stats_address=16, patch_size=16)
    with pytest.raises(UsageError, match="float64"):
        plan_postprocess(params, "float64")


@pytest.mark.parametrize("depth_range", list(DepthRange))
def test_depths_whose_squares_overflow_are_out_of_range(postprocess_shim, depth_range):
    raw = np.full((1, 16, 16), 1.0, np.float32)
    raw[0, :, ::2] = 1e38
    options = PostprocessOptions(range=depth_range)
    depth, stats = postprocess_shim.run(raw, 16, options=options, dtype="float32", depth_format=DepthFormat.METRES)
    is_clamped = depth_range is DepthRange.CLAMP
    far = np.float32(1e16 if is_clamped else math.nan)
    np.testing.assert_array_equal(depth, np.where(raw > 1, far, raw))
    assert np.isfinite(stats).all()
    np.testing.assert_allclose(stats[0, 0, 5], 1.0 if is_clamped else 0.5)
