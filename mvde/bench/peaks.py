"""What the machine can do at most, measured here: large matrix products, copies, and the statistics kernel beside them.

An engine's FLOP/s mean little alone; beside the best product of the same precision on the same machine, minutes apart,
they say how much is left to gain. Each is measured once per process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_RUNS_IN = {"fp32": {"f32"}, "bf16": {"bf16"}, "fp16": {"f16"}, "int8": {"i8", "u8"}}
_NUM_PRODUCTS = 4  # in a chain, so that the cost of one call and of its conversions is small beside them
_SIZES = (512, 1024, 2048)  # the first fits in a core's own cache, the last in none
_SECONDS_PER_SIZE = 0.4
_COPY_BYTES = 256 << 20
_KERNEL_SECONDS = 0.1


@dataclass(frozen=True)
class KernelSpeed:
    """The statistics kernel on a depth map of an engine's size, one thread.

    ``kernel_gb_per_s`` is the depth map's size over the kernel's median time; ``copy_gb_per_s`` is a plain copy of as
    many bytes, in the same level of the cache, counted read and written as STREAM counts it.
    """

    kernel: str
    median_ms: float
    kernel_gb_per_s: float
    copy_gb_per_s: float


@dataclass(frozen=True)
class ProductSpeed:
    """Operations per second (a multiply and an add are 2) of matrix products: the best of all sizes, whose operands
    stay in the caches, and that of the largest size, whose operands do not."""

    best_flops_per_s: float
    large_flops_per_s: float


@lru_cache(maxsize=8)
def product_speed(precision: str) -> ProductSpeed | None:
    """Speed of matrix products of a precision on this CPU.

    Square products of 512 to 2048 by constant weights, through OpenVINO (oneDNN), on all CPUs that this process may
    use; without OpenVINO, NumPy's for fp32. ``None`` where nothing that is installed computes in that precision.
    """
    if precision not in _HINTS:
        return None
    try:
        import openvino
    except ImportError:
        return _numpy_speed() if precision == "fp32" else None
    speeds: list[float] = []
    for size in _SIZES:
        run = _openvino_products(openvino, size, precision)
        if run is None:
            return None
        seconds = best_seconds(run, _SECONDS_PER_SIZE)
        speeds.append(2.0 * size**3 * _NUM_PRODUCTS / seconds)
        if seconds > 2 * _SECONDS_PER_SIZE:  # a small machine: a size eight times as large would take too long
            break
    return ProductSpeed(max(speeds), speeds[-1])


@lru_cache(maxsize=1)
def copy_bytes_per_s() -> float:
    """Bytes per second, read and written, of copying 256 MiB on one thread."""
    return _copy_bytes_per_s(_COPY_BYTES, 0.3)


@lru_cache(maxsize=8)
def kernel_speed(resolution: tuple[int, int], patch_size: int, stats: tuple[str, ...]) -> KernelSpeed:
    """Speed of the patch statistics on one depth map of ``resolution`` (H, W), beside a copy of the same size."""
    from mvde import native
    from mvde.stats import depth_to_patch_stats

    depth_m = 1 + np.random.default_rng(0).random((1, *resolution), np.float32)
    seconds = _times_s(lambda: depth_to_patch_stats(depth_m, patch_size, stats), _KERNEL_SECONDS)
    kernel = (native.kernel() if native.is_available() else None) or "numpy"
    median_s = float(np.median(seconds))
    copied = _copy_bytes_per_s(depth_m.nbytes, _KERNEL_SECONDS)
    return KernelSpeed(kernel, median_s * 1e3, depth_m.nbytes / median_s / 1e9, copied / 1e9)


def best_seconds(run: Callable[[], object], budget_s: float) -> float:
    """Shortest time of ``run`` in seconds after an untimed call, over as many calls (3 at least) as the budget has."""
    run()
    return float(min(_times_s(run, budget_s)))


def _times_s(run: Callable[[], object], budget_s: float) -> list[float]:
    times: list[float] = []
    deadline = time.perf_counter() + budget_s
    while len(times) < 3 or time.perf_counter() < deadline:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def _copy_bytes_per_s(num_bytes: int, budget_s: float) -> float:
    source, target = np.ones(num_bytes, np.uint8), np.zeros(num_bytes, np.uint8)
    return 2 * num_bytes / best_seconds(lambda: np.copyto(target, source), budget_s)


def _numpy_speed() -> ProductSpeed:
    speeds = []
    for size in _SIZES:
        a = np.random.default_rng(0).random((size, size), np.float32)
        speeds.append(2.0 * size**3 / best_seconds(lambda a=a: a @ a, _SECONDS_PER_SIZE))  # type: ignore[misc]
    return ProductSpeed(max(speeds), speeds[-1])


def _openvino_products(openvino: Any, size: int, precision: str) -> Callable[[], object] | None:
    """Function that runs a chain of products (size, size) x (size, size); ``None`` where another precision would run.

    The weights are constants, as an engine's are: the library packs them once.
    """
    import openvino.opset13 as ops

    from mvde.engines.openvino import shared_core

    rng = np.random.default_rng(0)
    x = ops.parameter([size, size], np.float32)
    value = x
    for _ in range(_NUM_PRODUCTS):
        if precision == "int8":
            value = _quantized(ops, value)
            levels = ops.convert(ops.constant(rng.integers(-127, 128, (size, size), dtype=np.int8)), np.float32)
            weight = ops.multiply(levels, ops.constant(np.full((size, 1), 1 / 127, np.float32)))
        else:
            weight = ops.constant((rng.standard_normal((size, size)) / size**0.5).astype(np.float32))
        value = ops.matmul(value, weight, False, True)
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = shared_core().compile_model(openvino.Model([value], [x], "products"), "CPU", options)
    except RuntimeError:
        return None
    if not _runs_in(compiled, _RUNS_IN[precision]):
        return None
    request, image = compiled.create_infer_request(), rng.standard_normal((size, size)).astype(np.float32)
    return lambda: request.infer([image], share_inputs=True)


def _quantized(ops: Any, value: Any) -> Any:
    low, high = (np.array([bound], np.float32) for bound in (-1.0, 127 / 128))
    return ops.fake_quantize(value, low, high, low, high, 256)


def _runs_in(compiled: Any, precisions: set[str]) -> bool:
    """Whether every product of the compiled model runs in one of the precisions, by its executed graph."""
    about = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    products = [one for one in about if one["layerType"].astype(str) in {"FullyConnected", "MatMul"}]
    return bool(products) and all(one["runtimePrecision"].astype(str) in precisions for one in products)
