"""Sky, masks of valid pixels, and confidence: libmvde's kernel against NumPy, and NumPy against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvde import native
from mvde.errors import UsageError
from mvde.stats import CONFIDENCE, STATS, check_stats, depth_to_patch_stats, masked_depth, numpy_patch_stats

RNG = np.random.default_rng(5)
COLUMNS = (*STATS, CONFIDENCE)
needs_library = pytest.mark.skipif(not native.is_available(), reason="needs libmvde")


def maps(dtype=np.float32):
    """Raw depth, a mask and confidence, (2, 28, 42), with values that are not numbers."""
    raw = RNG.uniform(0.5, 9, (2, 28, 42)).astype(dtype)
    mask, confidence = (RNG.uniform(0, 1, raw.shape).astype(dtype) for _ in range(2))
    raw[:, ::9, ::7], mask[:, ::8, ::5], confidence[:, ::5, ::11] = math.nan, math.nan, math.inf
    return raw, mask, confidence


def test_confidence_is_averaged_over_the_valid_pixels_of_a_patch():
    raw, _, confidence = maps()
    got = numpy_patch_stats(raw, 14, ("valid", CONFIDENCE), confidence=confidence)
    for row, top in enumerate((0, 14)):
        for column, left in enumerate((0, 14, 28)):
            values = [
                float(confidence[1, y, x]) if math.isfinite(confidence[1, y, x]) else 0.0
                for y in range(top, top + 14)
                for x in range(left, left + 14)
                if not math.isnan(raw[1, y, x])
            ]
            assert got[1, 3 * row + column, 1] == pytest.approx(sum(values) / len(values), rel=1e-6)
    assert not numpy_patch_stats(np.zeros_like(raw), 14, (CONFIDENCE,), confidence=confidence).any()


def test_sky_is_infinitely_far_and_a_mask_invalidates():
    depth, mask = np.full(4, 2.0, np.float32), np.array([0.0, 0.5, 0.75, math.nan], np.float32)
    np.testing.assert_array_equal(masked_depth(depth, mask, "sky", 0.5), [2, math.inf, math.inf, 2])
    np.testing.assert_array_equal(masked_depth(depth, mask, "mask", 0.5), [math.nan, 2, 2, math.nan])


@needs_library
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("role", ["sky", "mask"])
def test_libmvde_computes_what_numpy_specifies(role, dtype):
    raw, mask, confidence = maps(dtype)
    got = native.postprocess(
        raw, 14, COLUMNS, mask=mask, mask_role=role, mask_threshold=0.75, confidence=confidence[:, ::-1, ::-1]
    )
    expected = masked_depth(raw, mask, role, 0.75)
    np.testing.assert_array_equal(got.depth, expected)
    rows = numpy_patch_stats(expected, 14, COLUMNS, confidence=confidence[:, ::-1, ::-1])
    np.testing.assert_allclose(got.stats, rows, rtol=7e-6, atol=1e-9)


@needs_library
def test_sky_is_0_where_invalid_depth_is():
    raw, mask, _ = maps()
    expected = masked_depth(raw, mask, "sky", 0.5)
    zero = np.where(np.isfinite(expected), expected, 0)
    np.testing.assert_array_equal(native.postprocess(raw, 14, STATS, mask=mask, invalid_m=0).depth, zero)
    millimetres = native.postprocess(raw, 14, STATS, mask=mask, depth_dtype="uint16").depth
    np.testing.assert_array_equal(millimetres == 0, zero == 0)


@needs_library
def test_inverse_depth_of_0_and_below_is_invalid_also_with_a_shift():
    raw = np.array([[[0.0, -0.0, -1.0, 1e-30, 2.0, math.nan, math.inf, 0.5]]], np.float32)
    depth = native.postprocess(raw, 1, STATS, conversion="inverse", scale=0.5, shift=0.25).depth[0, 0]
    expected = np.array([math.nan, math.nan, math.nan, 4, 0.8, math.nan, math.nan, 2], np.float32)
    np.testing.assert_array_equal(depth, expected)


@needs_library
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask": np.ones((2, 28, 41), np.float32)}, r"mask has shape \(2, 28, 41\): expected that of raw"),
        ({"confidence": np.ones((28, 42), np.float32)}, "confidence has shape"),
        ({"mask": np.ones((2, 28, 42), bool)}, "'bool'"),
        ({"mask": np.ones((2, 28, 42), np.uint16)}, "options.mask.dtype is 3"),
        ({"mask_role": "cloud"}, "mask_role is 'cloud': expected one of sky, mask"),
        ({"mask": np.ones((2, 28, 42), np.float32), "mask_threshold": math.nan}, "mask_threshold is nan"),
        ({}, "MVDE_CONF: it needs a confidence map"),
    ],
)
def test_bad_input_is_one_clear_error(given, message):
    with pytest.raises(UsageError, match=message):
        native.postprocess(np.ones((2, 28, 42), np.float32), 14, COLUMNS, **given)


def test_conf_is_a_column_where_there_is_a_confidence_only():
    assert check_stats(("mean", "conf"), has_confidence=True) == ("mean", "conf")
    for call in (lambda: check_stats(("conf",)), lambda: depth_to_patch_stats(np.ones((1, 4, 4)), 4, ("conf",))):
        with pytest.raises(UsageError, match="'conf', which needs a network's confidence: expected some of mean, var"):
            call()
