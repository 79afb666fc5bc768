"""Peak performance of this machine: large matrix products, copies, and the statistics kernel relative to them.

An engine's FLOP/s are meaningful only relative to the best product of the same precision on the same machine, measured
minutes apart. Each is measured once per process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvde.engines.backends import backend, backend_names
from mvde.errors import MissingDependencyError
from mvde.precision import Precision

_NUM_PRODUCTS = 4  # chained, to amortise call and conversion overhead
_SIZES = (512, 1024, 2048)  # the first fits in a core's private cache, the last in none
_SECONDS_PER_SIZE = 0.4
_COPY_BYTES = 256 << 20
_KERNEL_SECONDS = 0.1


@dataclass(frozen=True)
class KernelSpeed:
    """Speed of the statistics kernel on a depth map of an engine's size, single-threaded.

    ``kernel_gb_per_s`` is the depth map's size over the kernel's median time; ``copy_gb_per_s`` is a plain copy of as
    many bytes, at the same cache level, counting reads and writes as STREAM does.
    """

    kernel: str
    median_ms: float
    kernel_gb_per_s: float
    copy_gb_per_s: float


@dataclass(frozen=True)
class ProductSpeed:
    """Operations per second of matrix products; a multiply-add counts as two.

    ``best_flops_per_s`` is the maximum over all sizes, with operands in cache; ``large_flops_per_s`` is that of the
    largest size, with operands in memory.
    """

    best_flops_per_s: float
    large_flops_per_s: float


@lru_cache(maxsize=8)
def product_speed(precision: Precision) -> ProductSpeed | None:
    """Measure the speed of matrix products of a precision on this CPU.

    Square products of 512 to 2048 by constant weights, with the first backend that supports them (OpenVINO, which uses
    oneDNN), on all CPUs available to this process; without one, NumPy's for fp32. ``None`` if nothing installed
    computes in that precision.
    """
    speeds: list[float] = []
    for size in _SIZES:
        run = _products(precision, size)
        if run is None:
            return _numpy_speed() if precision is Precision.FP32 else None
        seconds = best_seconds(run, _SECONDS_PER_SIZE)
        speeds.append(2.0 * size**3 * _NUM_PRODUCTS / seconds)
        if seconds > 2 * _SECONDS_PER_SIZE:  # the next size has eight times the work
            break
    return ProductSpeed(max(speeds), speeds[-1])


@lru_cache(maxsize=1)
def copy_bytes_per_s() -> float:
    """Bytes per second, reads plus writes, of copying 256 MiB on one thread."""
    return _copy_bytes_per_s(_COPY_BYTES, 0.3)


@lru_cache(maxsize=8)
def kernel_speed(resolution: tuple[int, int], patch_size: int, stats: tuple[str, ...]) -> KernelSpeed:
    """Measure the patch statistics on one depth map of ``resolution`` (H, W), and a copy of the same size."""
    from mvde import native
    from mvde.stats import depth_to_patch_stats

    depth_m = 1 + np.random.default_rng(0).random((1, *resolution), np.float32)
    seconds = _times_s(lambda: depth_to_patch_stats(depth_m, patch_size, stats), _KERNEL_SECONDS)
    kernel = (native.kernel() if native.is_available() else None) or "numpy"
    median_s = float(np.median(seconds))
    copied = _copy_bytes_per_s(depth_m.nbytes, _KERNEL_SECONDS)
    return KernelSpeed(kernel, median_s * 1e3, depth_m.nbytes / median_s / 1e9, copied / 1e9)


def best_seconds(run: Callable[[], object], budget_s: float) -> float:
    """Shortest time of ``run`` in seconds after an untimed call, over at least 3 calls within the budget."""
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


def _products(precision: Precision, size: int) -> Callable[[], object] | None:
    """Function that runs a chain of products (size, size) x (size, size); ``None`` if no backend supports it."""
    for name in backend_names():
        try:
            run = backend(name).products(precision, size, _NUM_PRODUCTS)
        except MissingDependencyError:
            continue
        if run is not None:
            return run
    return None
