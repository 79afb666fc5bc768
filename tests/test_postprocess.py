"""One pass from a network's map to depth and statistics: worked values, and NumPy against libmvde."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from mvde import native
from mvde.postprocess import numpy_postprocess, postprocess
from mvde.stats import STATS

BOTH = pytest.mark.parametrize(
    "function",
    [
        numpy_postprocess,
        pytest.param(
            postprocess, marks=pytest.mark.skipif(not native.is_available(), reason="libmvde is not built: make native")
        ),
    ],
)


@BOTH
def test_invalid_pixels_are_marked_and_do_not_count(function: Callable) -> None:
    raw = np.array([[2, 4], [0, -1], [math.nan, math.inf], [1e17, 8]], np.float32)
    depth, rows = function(raw, 2, ("mean", "max", "valid"), scale=0.5)
    np.testing.assert_array_equal(depth, np.array([[1, 2], [math.nan] * 2, [math.nan] * 2, [math.nan, 4]], np.float32))
    np.testing.assert_array_equal(rows, np.array([[1.5, 2, 0.5], [4, 4, 0.25]], np.float32))


@BOTH
def test_the_reciprocal_of_a_fitted_map_is_in_metres(function: Callable) -> None:
    raw = np.array([[2, 6], [10, 14]], np.float32)  # 1 / (x / 8 + 1/4) = 2, 1, 2/3, 1/2
    depth, rows = function(raw, 2, ("min", "max"), conversion="inverse", scale=0.125, shift=0.25)
    np.testing.assert_allclose(depth, [[2, 1], [2 / 3, 0.5]], rtol=1e-6)
    np.testing.assert_array_equal(rows, [[0.5, 2]])


@BOTH
def test_without_columns_there_is_depth_alone(function: Callable) -> None:
    depth, rows = function(np.zeros((4, 6), np.float32), 2, invalid=0.0)
    assert rows.shape == (6, 0)
    np.testing.assert_array_equal(depth, np.zeros((4, 6), np.float32))


@pytest.mark.skipif(not native.is_available(), reason="libmvde is not built: make native")
@pytest.mark.parametrize("conversion", ["linear", "inverse"])
def test_libmvde_agrees_with_the_reference(conversion: str) -> None:
    raw = np.random.default_rng(1).uniform(-0.5, 9, (64, 96)).astype(np.float32)
    ours, expected = (
        function(raw, 16, STATS, conversion=conversion, scale=0.7, shift=0.1)
        for function in (postprocess, numpy_postprocess)
    )
    np.testing.assert_array_equal(ours.depth, expected.depth)
    np.testing.assert_allclose(ours.stats, expected.stats, rtol=1e-4, atol=1e-6)
