"""Steps of gpu_acceptance.py that need a GPU and NVRTC, but no TensorRT; each runs in a process of its own.

    python benchmarks/gpu_steps.py statistics          # prints one line of JSON: the measurements
    python benchmarks/gpu_steps.py compile --arch sm_90  # needs no GPU

A device error ends a process's CUDA context; the other steps then still run. Only NumPy, cuda-core and cuda-bindings
are needed, and torch for the steps `torch`, `arrays` and `session`. Exit status: 0 passed, 1 failed, 3 not run (the
reason is on standard error).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a bare machine has no installed mvde

from gpu_device import Device  # noqa: E402

from mvde.cuda.compiler import SOURCES, compile_kernels, kernel_resources  # noqa: E402
from mvde.cuda.postprocess import (  # noqa: E402
    RAW_DTYPES,
    Conversion,
    DepthFormat,
    DepthRange,
    DeviceMap,
    PostprocessOptions,
    numpy_depth,
    postprocess_params,
)
from mvde.cuda.preprocess import (  # noqa: E402
    DeviceFrame,
    PixelFormat,
    YuvStandard,
    preprocess_params,
    resize_tables,
)
from mvde.errors import MissingDependencyError  # noqa: E402
from mvde.resampling import resample  # noqa: E402
from mvde.runtime.placement import place  # noqa: E402
from mvde.stats import STATS, numpy_patch_stats  # noqa: E402

NOT_RUN = 3
"""Exit status of a step that this machine cannot run."""

PATCHES = (1, 7, 14, 16, 32, 40, 130)
SIZES, BATCHES = (448, 896, 1792, 3584), (1, 4, 16)
_LARGEST_RUN = 4 * 3584 * 3584
"""Pixels of the largest measurement: more batches of the largest size say nothing new and take memory."""
_INVALID = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0], np.float32)


def stored(values: Any, dtype: str) -> tuple[Any, Any]:
    """``values`` rounded to ``dtype``: as stored, and as float32 (bfloat16 is stored as uint16)."""
    values = np.asarray(values, np.float32)
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            rounded = values.astype(dtype)
        return rounded, rounded.astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    even = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    top = np.where(np.isnan(values), 0x7FC0, even).astype(np.uint16)
    return top, (top.astype(np.uint32) << 16).view(np.float32)


def run_statistics(
    device: Device,
    raw: Any,
    patch: int,
    options: PostprocessOptions,
    dtype: str = "float32",
    depth_format: DepthFormat = DepthFormat.METRES,
) -> tuple[Any, Any]:
    """Depth and all statistics of raw values (B, H, W), as stored, from the device."""
    batch, height, width = raw.shape
    rows = (batch, (height // patch) * (width // patch), len(STATS))
    out = np.dtype(np.float32 if depth_format is DepthFormat.METRES else np.uint16)
    source, depth = device.put(raw), device.put(np.zeros(raw.shape, out))
    stats = device.put(np.full(rows, -1, np.float32))
    params = postprocess_params(
        DeviceMap(source.address),
        raw.shape,
        options,
        depth=DeviceMap(depth.address),
        depth_format=depth_format,
        stats_address=stats.address,
        patch_size=patch,
        stats=STATS,
    )
    device.postprocess(params, dtype)
    return device.get(depth, raw.shape, out), device.get(stats, rows, np.float32)


def check_statistics(device: Device, patches: tuple[int, ...] = PATCHES) -> dict[str, Any]:
    """Statistics and depth against the NumPy specification: patches, dtypes, conversions, bounds, millimetres."""
    rng, worst, count = np.random.default_rng(0), 0.0, 0
    for patch in patches:
        for dtype in RAW_DTYPES:
            raw = (1 + 8 * rng.random((2, 3 * patch, 5 * patch))).astype(np.float32)
            chosen = rng.random(raw.shape) < 0.05
            raw[chosen] = rng.choice(_INVALID, int(chosen.sum()))
            bits, rounded = stored(raw, dtype)
            options = PostprocessOptions(min_depth_m=1.5 if patch % 2 else 0.0, max_depth_m=8.0 if patch > 16 else 1e16)
            depth, got = run_statistics(device, bits, patch, options, dtype)
            np.testing.assert_array_equal(depth, numpy_depth(rounded, options).astype(np.float32))
            expected = numpy_patch_stats(depth, patch, STATS)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9, err_msg=f"patch {patch}, {dtype}")
            worst = max(worst, float(np.max(np.abs(got - expected) / np.maximum(np.abs(expected), 1e-3))))
            count += 1
    return {"cases": count + _check_conversions(device), "largest_relative_difference": worst}


def _check_conversions(device: Device) -> int:
    raw = (np.random.default_rng(1).standard_normal((1, 32, 48)) * 4).astype(np.float32)
    count = 0
    for conversion in Conversion:
        for depth_range in DepthRange:
            options = PostprocessOptions(conversion, 0.75, 0.125, depth_range, 0.2, 9.0)
            expected = numpy_depth(raw, options)
            edge = np.isclose(expected, 0.2, rtol=1e-6) | np.isclose(expected, 9.0, rtol=1e-6)
            metres, _ = run_statistics(device, raw, 16, options)
            np.testing.assert_allclose(metres[~edge], expected[~edge], rtol=2e-6, err_msg=str(options))
            millimetres, _ = run_statistics(device, raw, 16, options, depth_format=DepthFormat.MILLIMETRES)
            rounded = np.where(np.isnan(metres), 0, np.round(metres.astype(np.float64) * 1000))
            assert np.abs(millimetres - rounded).max() <= 1, f"millimetres of {options}"
            count += 2
    return count


def _picture(height: int, width: int) -> Any:
    """Edges, gradients and noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1)
    return np.where(rng.random((height, width, 1)) < 0.5, ramps, rng.integers(0, 256, (height, width, 3))).astype(
        np.uint8
    )


def run_picture(device: Device, pixels: Any, placement: Any, form: PixelFormat, chroma: Any = None) -> Any:
    """A frame as the device places it in the input, (H, W, 3) uint8."""
    shape = (*placement.target_size, 3)
    source, target = device.put(pixels), device.put(np.zeros(shape, np.uint8))
    planes = None if chroma is None else device.put(chroma)
    columns, rows = (device.put(table.packed()) for table in resize_tables(placement))
    pitch = pixels.nbytes // pixels.shape[0]
    frame = DeviceFrame(source.address, pitch, form, planes.address if planes else 0, pitch if planes else 0)
    device.preprocess(preprocess_params(frame, placement, target.address, columns.address, rows.address))
    return device.get(target, shape, np.uint8)


def check_pictures(device: Device, fits: tuple[str, ...] = ("stretch", "letterbox", "crop")) -> dict[str, Any]:
    """Frames of every layout, placed and resized, against the NumPy specification: equal, YCbCr to one level."""
    count = 0
    for source, target in (((48, 64), (48, 64)), ((333, 217), (112, 98)), ((45, 131), (64, 96))):
        image = _picture(*source)
        for fit in fits:
            placement = place(source, target, fit)
            columns, rows = resize_tables(placement)
            expected = np.full((*target, 3), placement.resampling.padding, np.uint8)
            part = resample(image[placement.source_box.slices], columns, 1)
            expected[placement.target_box.slices] = resample(part, rows, 0)
            np.testing.assert_array_equal(run_picture(device, image, placement, PixelFormat.RGB), expected)
            bgr = np.ascontiguousarray(image[..., ::-1])
            np.testing.assert_array_equal(run_picture(device, bgr, placement, PixelFormat.BGR), expected)
            grey = run_picture(device, np.ascontiguousarray(image[..., 0]), placement, PixelFormat.GREY)
            np.testing.assert_array_equal(grey, expected[..., :1].repeat(3, 2))
            count += 3
    return {"cases": count + _check_camera_layouts(device)}


def _check_camera_layouts(device: Device) -> int:
    rng, size = np.random.default_rng(2), (64, 48)
    luma, chroma = rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (32, 24, 2), np.uint8)
    u, v = (chroma[..., i].repeat(2, 0).repeat(2, 1) for i in (0, 1))
    placement = place(size, size, "stretch")
    got = run_picture(device, luma, placement, PixelFormat.NV12, chroma)
    assert np.abs(got - _rgb_of(luma, u, v)).max() <= 1, "NV12"
    packed = np.stack([luma, np.where(np.arange(48) % 2 == 0, u, v)], -1)
    got = run_picture(device, packed.astype(np.uint8), placement, PixelFormat.YUYV)
    assert np.abs(got - _rgb_of(luma, u, v)).max() <= 1, "YUYV"
    return 2


def _rgb_of(y: Any, u: Any, v: Any) -> Any:
    """RGB in float64 by the definition of BT.601, limited range (``YuvStandard.BT601_LIMITED``, the default)."""
    assert YuvStandard("bt601-limited") is YuvStandard.BT601_LIMITED
    y, u, v = np.maximum(y.astype(float) - 16, 0) * 255 / 219, (u - 128.0) * 255 / 224, (v - 128.0) * 255 / 224
    r, b = y + 2 * (1 - 0.299) * v, y + 2 * (1 - 0.114) * u
    return np.clip(np.round(np.stack([r, (y - 0.299 * r - 0.114 * b) / 0.587, b], -1)), 0, 255)


def check_graph(device: Device) -> dict[str, Any]:
    """Depth and statistics captured once into a CUDA graph, launched on new values at the same address."""
    shape, patch = (2, 224, 224), 14
    first, second = ((1 + np.random.default_rng(seed).random(shape)).astype(np.float32) for seed in (0, 1))
    source, updated = device.put(first), device.put(second)
    rows = (2, 256, len(STATS))
    stats = device.put(np.zeros(rows, np.float32))
    params = postprocess_params(
        DeviceMap(source.address),
        shape,
        PostprocessOptions(),
        stats_address=stats.address,
        patch_size=patch,
        stats=STATS,
    )
    launch = device.captured(lambda: device.postprocess(params, "float32"))
    device.copy(source, updated)
    launch()
    got = device.get(stats, rows, np.float32)
    np.testing.assert_allclose(got, numpy_patch_stats(second, patch, STATS), rtol=1e-6, atol=1e-9)
    return {
        "launch_ms": device.time_ms(launch),
        "eager_ms": device.time_ms(lambda: device.postprocess(params, "float32")),
    }


def measure_bandwidth(
    device: Device, sizes: tuple[int, ...] = SIZES, batches: tuple[int, ...] = BATCHES
) -> dict[str, Any]:
    """GB/s of depth and statistics (read, converted, written) beside a device copy of as many bytes."""
    rows = []
    for size in sizes:
        for batch in batches:
            if batch * size * size > _LARGEST_RUN:
                continue
            rows += [_bandwidth_row(device, size, batch, dtype) for dtype in ("float32", "float16")]
    return {"rows": rows}


def _bandwidth_row(device: Device, size: int, batch: int, dtype: str) -> dict[str, Any]:
    shape, patch, columns = (batch, size, size), 16, ("mean", "var", "grad")
    source, depth = device.put(np.ones(shape, dtype)), device.put(np.zeros(shape, np.float32))
    stats = device.put(np.zeros((batch, (size // patch) ** 2, 3), np.float32))
    params = postprocess_params(
        DeviceMap(source.address),
        shape,
        PostprocessOptions(),
        depth=DeviceMap(depth.address),
        stats_address=stats.address,
        patch_size=patch,
        stats=columns,
    )
    moved = source.size_bytes + depth.size_bytes + stats.size_bytes
    half = device.put(np.zeros(moved // 2, np.uint8))
    other = device.put(np.zeros(moved // 2, np.uint8))
    kernel_ms = device.time_ms(lambda: device.postprocess(params, dtype))
    copy_ms = device.time_ms(lambda: device.copy(other, half))
    return {
        "size": size,
        "batch": batch,
        "dtype": dtype,
        "kernel_us": round(kernel_ms * 1e3, 2),
        "kernel_gb_s": round(moved / kernel_ms / 1e6, 1),
        "copy_gb_s": round(moved / copy_ms / 1e6, 1),
        "share_of_copy": round(copy_ms / kernel_ms, 3),
    }


def compile_all(architecture: str) -> dict[str, Any]:
    """Registers, spills and shared memory of every kernel, compiled by NVRTC for ``architecture``."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        for kernel in kernel_resources(compile_kernels(source, architecture).log):
            spilled = kernel.spill_store_bytes + kernel.spill_load_bytes
            found[kernel.kernel] = {"registers": kernel.num_registers, "spilled_bytes": spilled}
    return {"architecture": architecture, "kernels": found}


def sanitized(device: Device) -> dict[str, Any]:
    """A few cases of every kernel, small enough for compute-sanitizer."""
    return {"statistics": check_statistics(device, (14, 40)), "pictures": check_pictures(device, ("crop",))}


def main() -> int:
    """Run one step and print its measurements as JSON; returns the exit status."""
    from gpu_torch_steps import TORCH_STEPS

    steps: dict[str, Callable[[Device], dict[str, Any]]] = {
        "statistics": check_statistics,
        "pictures": check_pictures,
        "graph": check_graph,
        "bandwidth": measure_bandwidth,
        "sanitized": sanitized,
        **TORCH_STEPS,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["compile", *steps])
    parser.add_argument("--arch", help="architecture for `compile`, such as sm_90; default: this GPU's")
    arguments = parser.parse_args()
    try:
        if arguments.step == "compile":
            details = compile_all(arguments.arch or this_architecture())
        else:
            details = steps[arguments.step](Device())
    except MissingDependencyError as reason:
        print(reason, file=sys.stderr)
        return NOT_RUN
    print(json.dumps(details))
    return 0


def this_architecture() -> str:
    """Architecture of this machine's GPU, such as ``"sm_90"``."""
    from mvde.cuda.gpu import require_gpu

    return "sm_" + require_gpu("compiling for this machine").compute_capability.replace(".", "")


if __name__ == "__main__":
    sys.exit(main())
