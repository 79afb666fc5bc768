"""Results of the runtime: depth in millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from mvde import native
from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.runtime.placement import place
from mvde.runtime.result import DepthResult, Timings

IN_METRES = (DepthKind.METRIC, DepthKind.METRIC_FOCAL)


def result_of(depth: np.ndarray, kind: DepthKind = DepthKind.METRIC) -> DepthResult:
    size = (depth.shape[-2], depth.shape[-1])
    stats = np.zeros((1, 1), np.float32)
    return DepthResult(depth, stats, (1, 1), Timings(0, 0, 0), ("mean",), kind, place(size, size, "stretch"))


@pytest.mark.parametrize("kind", IN_METRES)
def test_millimetres_follow_rep_118(kind: DepthKind) -> None:
    depth_m = np.array([[0.0004, 0.0006, 1.2342, 65.535, 65.6, np.nan, np.inf, -np.inf, -1.0, 0.0]], np.float32)
    encoded = result_of(depth_m, kind).millimetres()
    assert encoded.dtype == np.uint16
    np.testing.assert_array_equal(encoded, [[0, 1, 1234, 65535, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(result_of(np.stack([depth_m, depth_m]), kind).millimetres()[1], encoded)


@pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")
def test_millimetres_have_the_bits_of_the_library() -> None:
    rng = np.random.default_rng(0)
    halves = (np.arange(30_000) + 0.5) / 1000  # where rounding twice differs from rounding once
    depth = np.concatenate([halves, rng.uniform(0, 70, 30_000), [3.4e38, 1e-45]]).astype(np.float32).reshape(2, -1)
    expected = native.postprocess(depth[None], 1, ("mean",), depth_dtype="uint16").depth[0]
    np.testing.assert_array_equal(result_of(depth).millimetres(), expected)


@pytest.mark.parametrize("kind", sorted(set(DepthKind) - set(IN_METRES)))
def test_millimetres_of_a_map_without_metres_are_refused(kind: DepthKind) -> None:
    with pytest.raises(UsageError, match=f"needs a map in metres, but this one is {kind}, in the unit 1.*: use depth"):
        result_of(np.ones((2, 3), np.float32), kind).millimetres()
