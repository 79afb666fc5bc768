"""Rate of a stream over that of the engine alone, with and without a second engine, and what is outside of the engine.

    python benchmarks/stream.py ENGINE... [--rounds 7] [--seconds 1.5]

A round measures in turn, for so many seconds each: the engine alone (one frame in memory, over and over), whole frames
one by one (resizing, network, mapping back, statistics), a stream of them on one engine, and a stream that runs two
frames at a time on a second engine, each on half of the CPU. Rates are medians over rounds of the engine's time over
the other's in the same round. Memory is the growth of the process by the second engine.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mvde.engines.machine import resident_bytes
from mvde.image import read_photographs
from mvde.resampling import Resampling
from mvde.runtime import lanes
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.placement import fit_image, place


def frames_of(runtime: DepthRuntime) -> dict[str, Callable[[int], Iterator[object]]]:
    """Generators of so many frames, by name."""
    images, info = read_photographs(), runtime.info
    resampling = Resampling.of(runtime.manifest.preprocess)
    fitted = fit_image(images[0], place(images[0].shape[:2], info.resolution, "crop", resampling))
    batch = np.repeat(fitted[None], info.batch, axis=0)

    def streamed(count: int) -> Iterator[object]:
        return runtime.stream(itertools.islice(itertools.cycle(images), count))

    def on_one_engine(count: int) -> Iterator[object]:
        runtime._second, kept = lanes.SecondEngine(runtime.engine), runtime._second
        after_s, lanes.OPEN_AFTER_S = lanes.OPEN_AFTER_S, float("inf")
        yield from streamed(count)
        runtime._second, lanes.OPEN_AFTER_S = kept, after_s

    return {
        "engine alone": lambda count: (runtime.engine.infer(batch) for _ in range(count)),
        "whole frames": lambda count: (runtime.infer(images[index % len(images)]) for index in range(count)),
        "stream, one engine": on_one_engine,
        "stream": streamed,
    }


def timed(frames: Iterator[object], count: int) -> tuple[float, float]:
    """Milliseconds of a frame, by the clock and of CPU time."""
    started, cpu = time.perf_counter(), time.process_time()
    for _ in frames:
        pass
    return (time.perf_counter() - started) * 1e3 / count, (time.process_time() - cpu) * 1e3 / count


def measure(engine: Path, num_rounds: int, seconds: float) -> None:
    """Measure an engine and print its rows."""
    with DepthRuntime.load(engine) as runtime:
        contenders = frames_of(runtime)
        once_ms, _ = timed(contenders["whole frames"](5), 5)
        count = max(4, round(seconds * 1e3 / once_ms))
        timed(contenders["stream, one engine"](8), 8)
        before_bytes, after_s = resident_bytes(), lanes.OPEN_AFTER_S
        lanes.OPEN_AFTER_S = 0.0
        timed(contenders["stream"](16), 16)
        lanes.OPEN_AFTER_S, grown = after_s, resident_bytes() - before_bytes
        rounds = [{name: timed(make(count), count) for name, make in contenders.items()} for _ in range(num_rounds)]
    print(f"{engine.name}: {num_rounds} rounds of {count} frames; the second engine takes {grown / 2**20:.0f} MiB")
    for name in contenders:
        wall_ms, cpu_ms = (statistics.median(one[name][which] for one in rounds) for which in (0, 1))
        rate = statistics.median(one["engine alone"][0] / one[name][0] for one in rounds)
        print(f"  {name:20}{wall_ms:8.2f} ms a frame, CPU {cpu_ms:8.2f} ms, {rate:.3f} of the engine's rate")
    outside = statistics.median(1 - one["engine alone"][0] / one["whole frames"][0] for one in rounds)
    print(f"  outside of the engine: {outside:.1%} of a frame")


def main() -> None:
    """Measure each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each contender in a round")
    arguments = parser.parse_args()
    for engine in arguments.engines:
        measure(engine, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
