"""Cost of steady depth: the stream of an engine with the stabiliser and without it, in turns over the same frames.

    python benchmarks/stabilizer.py engines/NAME-HxW-BACKEND-PRECISION [--frames 40] [--repeats 5] [--json FILE]

The frames are a window of a bundled photograph that moves by a few pixels, as of a camera that turns; a scene without
motion costs less, because it needs no warp. `wall` and `CPU` are medians of the ratios of neighbouring runs, with the
stabiliser over without it; CPU time suffers less from other work on the machine. In a stream the stabiliser works
beside the network, so that wall time only grows where no core is idle.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np

from mvde.image import read_photographs
from mvde.resolution import parse_resolution
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.stabilize import Stabilization

STEP_PX = 3
"""Shift from one frame to the next."""


def panned(num_frames: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Frames (H, W, 3), uint8, of a window that goes to and fro over a photograph."""
    from PIL import Image

    reach = STEP_PX * min(num_frames, 20)
    photo = Image.fromarray(read_photographs()[0]).resize((size[1] + reach, size[0]))
    wide = np.asarray(photo)
    to_and_fro = itertools.cycle([*range(0, reach, STEP_PX), *range(reach, 0, -STEP_PX)])
    return [np.ascontiguousarray(wide[:, left : left + size[1]]) for left in itertools.islice(to_and_fro, num_frames)]


def times(runtime: DepthRuntime, frames: list[np.ndarray], settings: Stabilization | None) -> tuple[float, float]:
    """Wall and CPU milliseconds of a frame of the stream, and of the whole process."""
    wall, cpu, num_steady = time.perf_counter(), time.process_time(), 0
    for result in runtime.stream(frames, stabilize=settings):
        num_steady = result.num_steady or 0
    spent = time.perf_counter() - wall, time.process_time() - cpu
    if settings is not None and num_steady != len(frames):
        raise SystemExit(f"the stabiliser began anew after {len(frames) - num_steady} frames; it follows these no more")
    return spent[0] / len(frames) * 1e3, spent[1] / len(frames) * 1e3


def measure(runtime: DepthRuntime, frames: list[np.ndarray], num_repeats: int) -> dict[str, float]:
    """Median milliseconds of both streams, and the median ratios of neighbouring runs."""
    settings, pairs = Stabilization(), []
    times(runtime, frames[:4], None), times(runtime, frames[:4], settings)
    for _ in range(num_repeats):
        pairs.append((times(runtime, frames, None), times(runtime, frames, settings)))
    found = {}
    for index, name in enumerate(("wall", "CPU")):
        without, steady = (statistics.median(pair[which][index] for pair in pairs) for which in (0, 1))
        ratio = statistics.median(pair[1][index] / pair[0][index] for pair in pairs)
        found |= {f"{name}, without, ms": without, f"{name}, stabilised, ms": steady, f"{name}, ratio": ratio}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path, help="engine folder")
    parser.add_argument("--size", default="480x640", metavar="HxW", help="size of the frames")
    parser.add_argument("--frames", type=int, default=40, help="frames of a run")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    parser.add_argument("--json", type=Path, help="append the figures to this file as a line")
    given = parser.parse_args()
    with DepthRuntime.load(given.engine) as runtime:
        found = measure(runtime, panned(given.frames, parse_resolution(given.size)), given.repeats)
    for name, value in found.items():
        print(f"{name:22} {value:.3f}")
    if given.json:
        row = {"engine": given.engine.name, "size": given.size, "num_repeats": given.repeats, **found}
        with given.json.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
