"""Distances by bearing: their errors on rendered scenes, and their time beside that of patch statistics.

    python benchmarks/scan.py time [--sizes 192x192 448x448] [--budget 4] [--json FILE]
    python benchmarks/scan.py scenes ENGINE [--frames 640] [--seed 502] [--json FILE]

``time`` is single-threaded: the contenders are interleaved, and the median over rounds of the thread's CPU time is
shown.

``scenes`` renders rooms as a robot sees them (camera at most 1.5 m high, within 33 degrees of level) and compares the
scan of the engine's depth with that of the true depth, bearing by bearing: missed is the share of true obstacles within
2 m that are told 1.25 times as far or more, false the share of those told within 2 m that truly are 1.25 times as far
or more. The cells' own error is that of the scan of the true depth against the exact k-th nearest distance.

Frames of a room err alike: in one room 1 % of the obstacles are missed, in another 79 %. So rooms count, not frames: 40
rooms leave the share of missed ones uncertain by 0.05, and each share comes with the interval that holds it in 90 % of
the draws of as many rooms from those seen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mvde import native
from mvde.camera import Camera
from mvde.resolution import parse_resolution
from mvde.runtime.placement import Box
from mvde.runtime.points import native_rays
from mvde.runtime.scan import numpy_scan
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import ScanTable, scan_table

FOV_DEG = 57.0
"""The canonical camera of mvde's own models."""
NEAR_M, FACTOR = 2.0, 1.25
FRAMES_PER_ROOM = 4


def cost_ms(size: tuple[int, int], budget_s: float) -> dict[str, float]:
    """Median milliseconds of a scan and of patch statistics of the same depth, interleaved."""
    from mvde.native.scan import Scanner

    camera, settings = Camera.from_fov(FOV_DEG, None, size), ScanSettings(0.6, min_height_m=0.17)
    values = tuple(getattr(settings, name) for name in settings.__dataclass_fields__)
    scanner = Scanner(native_rays(camera), (0, 0, *size), values)
    rows, columns = np.indices(size)
    depth = (2 + np.sin(columns * 9.6 / size[1]) + 0.5 * np.cos(rows * 7.7 / size[0])).astype(np.float32)
    out = np.empty_like(scanner.info.reach_m)
    calls: dict[str, Callable[[], object]] = {
        "scan": lambda: scanner.scan(depth, out),
        "statistics": lambda: native.patch_stats(depth[None], 16, ("mean", "var", "grad")),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    ends = time.monotonic() + budget_s
    while time.monotonic() < ends:
        for name, call in calls.items():
            started = time.thread_time()
            for _ in range(20):
                call()
            found[name].append((time.thread_time() - started) / 20 * 1e3)
    return {name: statistics.median(times) for name, times in found.items()}


def exact_ranges(depth: np.ndarray, table: ScanTable) -> np.ndarray:
    """Distance of the k-th nearest obstacle pixel of each sector, k the support; +inf without so many."""
    settings, found = table.settings, np.full(table.num_bearings, np.inf)
    ranges, heights = depth * table.range_factor, settings.height_m + depth * table.height_factor
    is_obstacle = (depth > 0) & (heights > settings.lowest_m) & (heights < settings.max_height_m)
    is_obstacle &= (ranges <= settings.range_max_m) & (table.bearing >= 0)
    sectors, distances = table.bearing[is_obstacle], ranges[is_obstacle]
    order = np.lexsort((distances, sectors))
    first = np.searchsorted(sectors[order], np.arange(table.num_bearings + 1))
    has_enough = first[1:] - first[:-1] >= table.support
    found[has_enough] = distances[order][first[:-1][has_enough] + table.support - 1]
    return found


def mounting(world_from_camera: np.ndarray, height_m: float) -> ScanSettings:
    """Settings of a rendered view, whose axes are right, up and backward; the world's z is up."""
    right_up, up_up, back_up = (float(world_from_camera[2, axis]) for axis in range(3))
    return ScanSettings(height_m, math.degrees(math.asin(back_up)), math.degrees(math.atan2(-right_up, up_up)))


def views(size: tuple[int, int], count: int, seed: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, ScanSettings]]:
    """Yield room, picture (H, W, 3), true depth (H, W) and mounting of ``count`` views that a mobile robot may have."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from mvde.datasets.synth.develop import develop
    from mvde.datasets.synth.renderer import Renderer
    from mvde.datasets.synth.scene import build_scene
    from mvde.datasets.synth.textures import build_textures
    from mvde.datasets.synth.views import View, is_good_view, sample_view

    textures = build_textures()
    renderer, room, num = Renderer(textures, size), -1, 0
    while num < count:
        room += 1
        rng = np.random.default_rng((seed, room))
        scene = build_scene(rng, textures.groups)
        renderer.set_scene(scene)
        last = num + FRAMES_PER_ROOM
        for _ in range(40):
            view = sample_view(rng, scene)
            view = View(view.eye_m, view.world_from_camera, math.radians(FOV_DEG))
            is_mobile = abs(view.world_from_camera[2, 2]) < math.sin(math.radians(33)) and view.eye_m[2] <= 1.5
            if not is_mobile or not is_good_view(renderer.probe(view)):
                continue
            settings = mounting(view.world_from_camera, float(view.eye_m[2]))
            light, depth = renderer.render(view)
            true = np.where((depth > 0) & (depth <= 10), depth, np.inf).astype(np.float32)
            yield room, develop(light.copy(), rng), true, settings
            num += 1
            if num == count:
                return
            if num == last:
                break


def score(true: np.ndarray, told: np.ndarray) -> dict[str, int]:
    """Count near obstacles, missed ones, told ones and false ones."""
    near, close = true < NEAR_M, told < NEAR_M
    missed = near & (told > FACTOR * true)
    false = close & (true > FACTOR * told)
    counts = {"near": near, "missed": missed, "told": close, "false": false}
    return {name: int(found.sum()) for name, found in counts.items()}


def share(counts: np.ndarray) -> tuple[float, float, float]:
    """Share of the first column of ``counts`` (rooms, 2) in the second, and 5 % and 95 % of it over draws of rooms."""
    drawn = np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))
    part, whole = counts[drawn].sum(axis=1).T
    low, high = np.quantile(part / whole, (0.05, 0.95))
    return float(counts[:, 0].sum() / counts[:, 1].sum()), float(low), float(high)


def scenes(engine: Path, count: int, seed: int) -> dict[str, float]:
    """Shares of missed and false obstacles, and errors, over ``count`` rendered frames."""
    from mvde.runtime.depth import DepthRuntime

    by_room: dict[str, dict[int, Counter[str]]] = {"plain": {}, "margin 0.1": {}}
    cells, nearest = [], []
    with DepthRuntime.load(engine) as runtime:
        size = runtime.info.resolution
        camera = Camera.from_fov(FOV_DEG, None, size)
        for room, picture, true_depth, settings in views(size, count, seed):
            table = scan_table(camera, settings, Box(0, 0, *size))
            depth = runtime.infer(picture, camera=camera).depth
            exact, true, told = exact_ranges(true_depth, table), numpy_scan(true_depth, table), numpy_scan(depth, table)
            both = np.isfinite(exact) & np.isfinite(true)
            cells.append(np.abs(np.log(true[both] / exact[both])))
            for name, ranges in (("plain", told), ("margin 0.1", told * np.float32(math.exp(-0.1)))):
                by_room[name].setdefault(room, Counter()).update(score(exact, ranges))
            if math.isfinite(exact.min()) and exact.min() < 3 and math.isfinite(np.nanmin(told)):
                nearest.append(abs(math.log(np.nanmin(told) / exact.min())))
    errors = np.concatenate(cells)
    found = {"rooms": float(len(by_room["plain"]))}
    found |= {"cells, mean error": float(errors.mean()), "cells, largest error": float(errors.max())}
    found["nearest obstacle, median error"] = float(np.median(nearest))
    found["nearest obstacle, 90 % of frames"] = float(np.quantile(nearest, 0.9))
    for name, rooms in by_room.items():
        for part, whole in (("missed", "near"), ("false", "told")):
            counts = np.array([[room[part], room[whole]] for room in rooms.values()])
            for of, value in zip(("", ", 5 % of draws", ", 95 % of draws"), share(counts), strict=True):
                found[f"{name}, {part}{of}"] = value
    return found


def main() -> None:
    """Run one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    verbs = parser.add_subparsers(required=True, dest="verb")
    timed = verbs.add_parser("time")
    timed.add_argument("--sizes", nargs="+", default=["192x192", "448x448"])
    timed.add_argument("--budget", type=float, default=4.0, help="seconds for each size")
    rendered = verbs.add_parser("scenes")
    rendered.add_argument("engine", type=Path)
    rendered.add_argument("--frames", type=int, default=640)
    rendered.add_argument("--seed", type=int, default=502)
    options = parser.parse_args()
    found: dict[str, object]
    if options.verb == "time":
        found = {}
        for text in options.sizes:
            costs = cost_ms(parse_resolution(text), options.budget)
            ratio = costs["scan"] / costs["statistics"]
            print(f"{text}: scan {costs['scan']:.4f} ms, statistics {costs['statistics']:.4f} ms, ratio {ratio:.2f}")
            found[text] = {**costs, "ratio": ratio}
    else:
        found = dict(scenes(options.engine, options.frames, options.seed))
        for name, value in found.items():
            print(f"{name:36} {value:.4f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
