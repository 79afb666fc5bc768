"""Single-threaded time of the points of a depth map, beside a copy of as many bytes, on the same buffers.

    python benchmarks/points.py [--sizes 480x640 720x1280 1080x1920] [--budget 4] [--json FILE]

The contenders are interleaved; the median over rounds of the thread's CPU time is shown, which is robust to other load.
"copy" is numpy.copyto of the points' own bytes between two buffers: what a program pays that only publishes them. The
last column is the copy's time over the points'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvde import native
from mvde.camera import Camera
from mvde.distortion import Distortion, DistortionModel
from mvde.resolution import parse_resolution
from mvde.runtime.points import depth_points, write_points
from mvde.runtime.rays import camera_rays

Call = Callable[[], object]
LENS = Distortion(DistortionModel.PLUMB_BOB, (-0.055, 0.067, 0.0007, 0.0005, -0.021))


def contenders(size: tuple[int, int]) -> dict[str, tuple[Call, Call]]:
    """Pairs of calls to time: points, and the copy of their bytes."""
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 10, size).astype(np.float32)
    rgb = rng.integers(0, 256, (*size, 3), np.uint8)
    camera = Camera.from_fov(69, None, size)
    bent = Camera(camera.fx, camera.fy, camera.cx, camera.cy, size, LENS)
    plain, coloured = np.zeros((*size, 3), np.float32), np.zeros((*size, 4), np.float32)
    copies = {3: np.zeros_like(plain), 4: np.zeros_like(coloured)}

    def copy(points: np.ndarray) -> Call:
        return lambda: np.copyto(copies[points.shape[-1]], points)

    found: dict[str, tuple[Call, Call]] = {
        "XYZ": (lambda: depth_points(depth, camera, out=plain), copy(plain)),
        "XYZ and colour": (lambda: depth_points(depth, camera, rgb=rgb, out=coloured), copy(coloured)),
        "XYZ, distorted lens": (lambda: depth_points(depth, bent, out=plain), copy(plain)),
    }
    for step in (2, 4):
        part = np.zeros((-(-size[0] // step), -(-size[1] // step), 3), np.float32)
        spare = np.zeros_like(part)
        found[f"XYZ, step {step}"] = (
            lambda step=step, part=part: depth_points(depth, camera, step, out=part),
            lambda part=part, spare=spare: np.copyto(spare, part),
        )
    rays = camera_rays(camera)
    found["XYZ in NumPy"] = (lambda: write_points(depth, *rays, 1, None, plain), copy(plain))
    return found


def time_in_turn(calls: dict[str, tuple[Call, Call]], budget_s: float) -> dict[str, tuple[float, float]]:
    """Median CPU times in ms of both calls of each pair."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    for own, copy in calls.values():  # computes the rays, touches the pages
        own(), copy()
    deadline = time.perf_counter() + budget_s
    while time.perf_counter() < deadline:
        for name, pair in calls.items():
            for call, list_ms in zip(pair, times[name], strict=True):
                started = time.thread_time_ns()
                call()
                list_ms.append((time.thread_time_ns() - started) / 1e6)
    return {name: (statistics.median(own), statistics.median(copies)) for name, (own, copies) in times.items()}


def main() -> None:
    """Print the times, and write them as JSON lines if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["480x640", "720x1280", "1080x1920"], metavar="HxW")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds per size")
    parser.add_argument("--json", type=Path, help="append the rows to this file, one object a line")
    options = parser.parse_args()
    print(f"kernel {native.kernel()}, one thread")
    for text in options.sizes:
        size = parse_resolution(text)
        for name, (points_ms, copy_ms) in time_in_turn(contenders(size), options.budget).items():
            print(f"{text:>10}  {name:<20} {points_ms:7.3f} ms  copy {copy_ms:7.3f} ms  {copy_ms / points_ms:5.2f}")
            if options.json is not None:
                row = {
                    "size": size,
                    "name": name,
                    "points_ms": points_ms,
                    "copy_ms": copy_ms,
                    "kernel": native.kernel(),
                }
                with options.json.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
