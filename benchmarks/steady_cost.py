"""What the stabiliser costs, as a share of the frames that it makes steady.

    python benchmarks/steady_cost.py ENGINE... [--rounds 60] [--json FILE]

A round is a frame of the engine (resizing, network, mapping back, statistics, of a camera of 480 x 640) and one update
of a stabiliser, in turn, in two streams: a camera that moves, whose past is warped, and one at rest. libmvde's is used
where it is installed. "share" is the median over rounds of the update's time over that of the frame before it; that of
the CPU time of all threads is less disturbed by other load on the machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mvde.runtime.depth import DepthRuntime
from mvde.runtime.stabilize import Stabilization
from mvde.runtime.steady_stream import fastest_stabilizer

FRAME = (480, 640)
SHIFT_PX = 4  # between frames, of the camera's pixels


def pictures(count: int, shift_px: int) -> list[np.ndarray]:
    """Frames (480, 640, 3) of a textured plane that moves sideways."""
    rng = np.random.default_rng(0)
    height, width = FRAME
    blocks = rng.integers(30, 220, (height // 20 + 1, (width + count * shift_px) // 20 + 2, 3), np.uint8)
    plane = blocks.repeat(20, axis=0).repeat(20, axis=1)
    return [np.ascontiguousarray(plane[:height, i * shift_px : i * shift_px + width]) for i in range(count)]


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frame as it enters the network."""
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a call, by the clock and of CPU time."""
    started, cpu = time.perf_counter(), time.process_time()
    call()
    return (time.perf_counter() - started) * 1e3, (time.process_time() - cpu) * 1e3


def measure(engine: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Frame and update in milliseconds, and the shares, of a camera that moves and one at rest."""
    found = {}
    with DepthRuntime.load(str(engine)) as runtime:
        size = runtime.info.resolution
        for name, shift_px in (("moves", SHIFT_PX), ("rests", 0)):
            stabilizer = fastest_stabilizer(runtime.manifest.depth_kind, Stabilization())
            rows = []
            for picture in pictures(rounds, shift_px):
                frame = timed(functools.partial(runtime.infer, picture))
                inner = resized(picture, size)
                depth = np.broadcast_to(np.linspace(1, 3, size[1], dtype=np.float32), size).copy()
                rows.append((*frame, *timed(functools.partial(stabilizer.update, inner, depth))))
            assert stabilizer.num_frames == rounds, "a frame was taken for a cut"
            rows = rows[5:]
            middle = [statistics.median(column) for column in zip(*rows, strict=True)]
            shares = [statistics.median(row[2 + i] / row[i] for row in rows) for i in (0, 1)]
            found[name] = dict(
                zip(
                    ("frame_ms", "frame_cpu_ms", "update_ms", "update_cpu_ms", "share", "share_cpu"),
                    (*middle, *shares),
                    strict=True,
                )
            )
    return found


def main() -> None:
    """Measure each engine and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    print("| engine | camera | frame | update | share | of CPU time |\n|---|---|---|---|---|---|")
    for engine in arguments.engines:
        results[str(engine)] = measure(engine, arguments.rounds)
        for camera, row in results[str(engine)].items():
            times = f"{row['frame_ms']:.1f} ms | {row['update_ms']:.2f} ms"
            print(f"| {engine.name} | {camera} | {times} | {row['share']:.1%} | {row['share_cpu']:.1%} |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
