"""CUDA kernels, executed on the CPU, against libmvde: bit-identical where the arithmetic allows."""

from __future__ import annotations

import numpy as np
import pytest

from mvde import native
from mvde.cuda.postprocess import Conversion, DepthFormat, DepthRange, PostprocessOptions
from mvde.cuda.preprocess import PixelFormat
from mvde.runtime.placement import place
from mvde.stats import STATS


@pytest.fixture(autouse=True)
def _libmvde():
    if not native.is_available():
        pytest.skip("libmvde is not built: pip install --editable .")


@pytest.mark.parametrize("depth_format", DepthFormat)
@pytest.mark.parametrize("depth_range", DepthRange)
@pytest.mark.parametrize("conversion", Conversion)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_depth_and_statistics(postprocess_shim, conversion, depth_range, depth_format, dtype):
    rng = np.random.default_rng(0)
    raw = (rng.standard_normal((2, 28, 42)) * 3).astype(dtype)
    raw[0, 3, :4] = [np.nan, np.inf, -np.inf, 0]
    options = PostprocessOptions(conversion, 0.7, 0.3, depth_range, 0.2, 9.0)
    depth, stats = postprocess_shim.run(raw, 14, STATS, options, dtype=dtype, depth_format=depth_format)
    expected = native.postprocess(
        raw,
        14,
        STATS,
        conversion=conversion.name.lower(),
        scale=0.7,
        shift=0.3,
        depth_range=depth_range.name.lower(),
        min_depth=0.2,
        max_depth=9.0,
        depth_dtype="float32" if depth_format is DepthFormat.METRES else "uint16",
    )
    if conversion in (Conversion.LINEAR, Conversion.INVERSE):
        np.testing.assert_array_equal(depth, expected.depth)
        np.testing.assert_allclose(stats, expected.stats, rtol=1e-6)
    else:  # two exponentials of 2 ulp each; ties at a bound or half a millimetre may go either way
        unlike = ~np.isclose(depth, expected.depth, rtol=1e-6, atol=0, equal_nan=True)
        assert unlike.mean() < 0.01
        if not unlike.any():
            np.testing.assert_allclose(stats, expected.stats, rtol=4e-6)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_frames(preprocess_shim, pixel_format, fit):
    height, width, target = 66, 90, (48, 56)
    rows = {PixelFormat.RGB: 3 * width, PixelFormat.BGR: 3 * width, PixelFormat.YUYV: 2 * width}
    frame = np.random.default_rng(1).integers(0, 256, (height, rows.get(pixel_format, width)), np.uint8)
    chroma = np.random.default_rng(2).integers(0, 256, (height // 2, width), np.uint8)
    whole = np.concatenate([frame, chroma]) if pixel_format is PixelFormat.NV12 else frame
    shape = {PixelFormat.NV12: (99, width), PixelFormat.GREY: (height, width)}.get(pixel_format, (height, width, -1))
    with native.Resizer((height, width), target, fit, pixel_format.name.lower()) as resizer:
        expected = resizer.resize(whole.reshape(shape))
    placement = place((height, width), target, fit)
    got = preprocess_shim.run(
        frame, placement, pixel_format, chroma=chroma if pixel_format is PixelFormat.NV12 else None
    )
    np.testing.assert_array_equal(got, expected)
