"""The kernels on a real GPU, against the same references as on the CPU, and under compute-sanitizer."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mvde.cuda.postprocess import (
    Conversion,
    DepthFormat,
    DepthRange,
    DeviceMap,
    PostprocessOptions,
    postprocess_params,
)
from mvde.cuda.preprocess import DeviceFrame, preprocess_params, resize_tables
from mvde.runtime.placement import place
from mvde.stats import STATS, numpy_patch_stats

pytestmark = pytest.mark.gpu


class Gpu:
    """Device with a stream and copies to and from its memory."""

    def __init__(self, core, device):
        self.core, self.device = core, device
        self.stream = device.create_stream()

    def upload(self, array):
        contiguous = np.ascontiguousarray(array)
        staging = self.core.LegacyPinnedMemoryResource().allocate(contiguous.nbytes)
        ctypes.memmove(int(staging.handle), contiguous.ctypes.data, contiguous.nbytes)
        buffer = self.device.allocate(contiguous.nbytes, stream=self.stream)
        buffer.copy_from(staging, stream=self.stream)
        self.stream.sync()
        return buffer

    def download(self, buffer, dtype, shape):
        staging = self.core.LegacyPinnedMemoryResource().allocate(buffer.size)
        buffer.copy_to(staging, stream=self.stream)
        self.stream.sync()
        return np.frombuffer(ctypes.string_at(int(staging.handle), buffer.size), dtype).reshape(shape).copy()


@pytest.fixture(scope="module")
def gpu():
    core = pytest.importorskip("cuda.core")
    try:
        device = core.Device(0)
        device.set_current()
    except Exception as error:  # noqa: BLE001  (cuda.core raises several types for "no driver" and "no device")
        pytest.skip(f"no CUDA device: {error}")
    return Gpu(core, device)


@pytest.fixture(scope="module")
def postprocess(gpu, tmp_path_factory):
    from mvde.cuda.launch import PostprocessKernels

    return PostprocessKernels(gpu.device, tmp_path_factory.mktemp("cubin"))


def run_postprocess(gpu, kernels, raw, patch_size, options, dtype="float32", depth_format=DepthFormat.METRES):
    batch, height, width = raw.shape
    num_patches = (height // patch_size) * (width // patch_size)
    source = gpu.upload(raw)
    out_dtype = np.dtype(np.float32 if depth_format is DepthFormat.METRES else np.uint16)
    depth = gpu.upload(np.zeros(raw.shape, out_dtype))
    stats = gpu.upload(np.full((batch, num_patches, len(STATS)), -1, np.float32))
    params = postprocess_params(
        DeviceMap(int(source.handle)),
        raw.shape,
        options,
        depth=DeviceMap(int(depth.handle)),
        depth_format=depth_format,
        stats_address=int(stats.handle),
        patch_size=patch_size,
        stats=STATS,
    )
    kernels.enqueue(params, dtype, gpu.stream)
    return (
        gpu.download(depth, out_dtype, raw.shape),
        gpu.download(stats, np.float32, (batch, num_patches, len(STATS))),
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("patch_size", [1, 7, 14, 16, 32, 40, 130])
def test_statistics_match_the_specification(gpu, postprocess, patch_size, dtype):
    rng = np.random.default_rng(patch_size)
    raw = (1 + 8 * rng.random((2, 3 * patch_size, 5 * patch_size))).astype(dtype)
    raw[rng.random(raw.shape) < 0.05] = np.nan
    depth, got = run_postprocess(gpu, postprocess, raw, patch_size, PostprocessOptions(), dtype)
    np.testing.assert_array_equal(depth, raw.astype(np.float32))
    np.testing.assert_allclose(got, numpy_patch_stats(depth, patch_size, STATS), rtol=6e-7, atol=1e-9)


@pytest.mark.parametrize("conversion", Conversion)
def test_conversions_match_those_on_the_cpu(gpu, postprocess, postprocess_shim, conversion):
    raw = (np.random.default_rng(0).standard_normal((1, 32, 48)) * 4).astype(np.float32)
    options = PostprocessOptions(conversion, 0.75, 0.125, DepthRange.CLAMP, 0.2, 9.0)
    depth, _ = run_postprocess(gpu, postprocess, raw, 16, options)
    expected, _ = postprocess_shim.run(raw, 16, STATS, options, depth_format=DepthFormat.METRES)
    if conversion in (Conversion.LINEAR, Conversion.INVERSE):
        np.testing.assert_array_equal(depth, expected)  # IEEE 754 operations in the same order
    else:
        np.testing.assert_allclose(depth, expected, rtol=1e-6)


def test_two_runs_give_the_same_bits(gpu, postprocess):
    raw = (1 + np.random.default_rng(0).random((4, 224, 224))).astype(np.float32)
    first, again = (run_postprocess(gpu, postprocess, raw, 14, PostprocessOptions()) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_frames_equal_those_of_the_cpu(gpu, preprocess_shim, tmp_path, fit):
    from mvde.cuda.launch import PreprocessKernels

    image = np.random.default_rng(0).integers(0, 256, (333, 217, 3), np.uint8)
    placement = place((333, 217), (112, 98), fit)
    source, target = gpu.upload(image), gpu.upload(np.zeros((112, 98, 3), np.uint8))
    columns, rows = (gpu.upload(table.packed()) for table in resize_tables(placement))
    addresses = [int(buffer.handle) for buffer in (target, columns, rows)]
    params = preprocess_params(DeviceFrame(int(source.handle), 217 * 3), placement, *addresses)
    PreprocessKernels(gpu.device, tmp_path).enqueue(params, gpu.stream)
    np.testing.assert_array_equal(gpu.download(target, np.uint8, (112, 98, 3)), preprocess_shim.run(image, placement))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer_finds_nothing(gpu, tool):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    if os.environ.get("NV_COMPUTE_SANITIZER_TARGET"):
        pytest.skip("already inside compute-sanitizer")
    selected = ["-k", "not sanitizer and (14 or 40 or crop)", "-p", "no:cacheprovider", "-q", __file__]
    command = [sanitizer, "--tool", tool, "--error-exitcode", "77", sys.executable, "-m", "pytest", *selected]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"NV_COMPUTE_SANITIZER_TARGET": "1"}
    )
    assert done.returncode == 0, done.stdout[-4000:]
