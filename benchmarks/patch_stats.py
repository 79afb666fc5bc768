"""Single-threaded latency of patch statistics (mean, var, grad) in libmvde, NumPy and torch, on the same arrays.

    python benchmarks/patch_stats.py [--sizes 224 448 896 1792 3584] [--patch 16] [--json FILE]

The contenders are interleaved and the median over rounds of the thread's CPU time is shown, which is robust to other
load. (Not the minimum: CPU time on a virtual machine is occasionally too short.) GB/s is the size of the depth map over
the time. "sum" is numpy.sum over the same array, a lower bound for reading it once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from mvde import native
from mvde.stats import depth_to_patch_stats, numpy_patch_stats

STATS = ("mean", "var", "grad")


def plain_numpy(depth: np.ndarray, patch: int) -> np.ndarray:
    """Usual whole-image formulation in float32 NumPy: no validity mask, unstable for large offsets."""
    batch, height, width = depth.shape
    gy = np.pad(depth, ((0, 0), (1, 1), (0, 0)), "edge")
    gx = np.pad(depth, ((0, 0), (0, 0), (1, 1)), "edge")
    slope = np.sqrt(((gx[..., 2:] - gx[..., :-2]) / 2) ** 2 + ((gy[:, 2:] - gy[:, :-2]) / 2) ** 2)

    def patches(image: np.ndarray) -> np.ndarray:
        grid = image.reshape(batch, height // patch, patch, width // patch, patch).transpose(0, 1, 3, 2, 4)
        return grid.reshape(batch, -1, patch * patch)

    cells = patches(depth)
    return np.stack([cells.mean(-1), cells.var(-1), patches(slope).mean(-1)], -1)


def contenders(depth: np.ndarray, patch: int) -> dict[str, Callable[[], object]]:
    """Calls to time, by name; torch only if it is installed."""
    depth_out = np.empty_like(depth)
    calls: dict[str, Callable[[], object]] = {
        "sum": depth.sum,
        "libmvde stats": lambda: native.patch_stats(depth, patch, STATS),
        "libmvde depth+stats": lambda: native.postprocess(
            depth, patch, STATS, depth_range="clamp", max_depth=80.0, out=depth_out
        ),
        "numpy (mvde.stats)": lambda: numpy_patch_stats(depth, patch, STATS),
        "numpy (plain)": lambda: plain_numpy(depth, patch),
    }
    try:
        import torch
    except ImportError:
        return calls
    torch.set_num_threads(1)
    tensor = torch.from_numpy(depth)
    calls["torch (mvde.stats)"] = lambda: depth_to_patch_stats(tensor, patch, STATS)
    calls["torch (pooled)"] = lambda: pooled_torch(tensor, patch)
    return calls


def pooled_torch(depth, patch: int):  # type: ignore[no-untyped-def]
    """Fastest known torch formulation: average pooling of d, d² and the slope; no validity mask, unstable."""
    import torch
    from torch.nn import functional

    padded = functional.pad(depth[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    gx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    gy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    slope = gx.mul_(gx).addcmul_(gy, gy).sqrt_().mul_(0.5)
    pooled = functional.avg_pool2d(torch.stack([depth, depth * depth, slope], 1), patch)
    pooled[:, 1] -= pooled[:, 0] ** 2
    return pooled.flatten(2).transpose(1, 2)


def time_in_turn(calls: dict[str, Callable[[], object]], budget_s: float) -> dict[str, float]:
    """Median time of each call in ms. Slow calls skip most rounds, so that fast ones get more samples."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    deadline = time.perf_counter() + budget_s
    while time.perf_counter() < deadline:
        least = min(spent.values())
        for name, call in calls.items():
            if spent[name] > 4 * least + 0.02 * budget_s:
                continue
            start = time.thread_time()
            call()
            elapsed = time.thread_time() - start
            spent[name] += elapsed
            times[name].append(elapsed * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Time every size and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 448, 896, 1792, 3584])
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0, help="time budget per size")
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per size")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"kernel {native.kernel()}, patch {options.patch}, float32, 1 thread")
    for size in options.sizes:
        depth = 1 + rng.random((1, size, size), np.float32)
        median = time_in_turn(contenders(depth, options.patch), options.seconds)
        ours, total = median["libmvde stats"], median["libmvde depth+stats"]
        print(f"\n{size}x{size} ({depth.nbytes / 2**20:.1f} MiB)")
        for name, milliseconds in median.items():
            rate = depth.nbytes / milliseconds / 1e6
            print(f"  {name:22}{milliseconds:10.3f} ms {rate:8.2f} GB/s {milliseconds / ours:8.1f} x libmvde stats")
        print(f"  stats / sum {ours / median['sum']:.2f}; depth+stats / stats {total / ours:.2f}")
        if options.json:
            record = {"kernel": native.last_kernel(), "size": size, "patch": options.patch, "median_ms": median}
            with options.json.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
