"""Cost of drawing training batches, and of reading shards.

    python benchmarks/sampling.py [--frames 10000000] [--shard-frames 1000] [--batch 256] [--steps 2000]
    python benchmarks/sampling.py --read DATA --format FORMAT [--shard-frames 1000]

The first form compares the order over all frames with the order over shards (``mvde.pipelines.orders``), without any
data: the first batch of an epoch, the others, the slowest of them, a resumption in the middle, and the memory that
each loader process holds. The second packs a data set both ways, and times frames in random order within a window, as
training reads them, against the data set itself; and opening a tar with and without the index beside it. All times are
CPU time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvde.datasets.formats import ShardKind, open_dataset
from mvde.datasets.pack import pack
from mvde.datasets.sample import DepthDataset
from mvde.datasets.shard_files import TarShard, index_path, tar_index
from mvde.datasets.shards import ShardDataset
from mvde.pipelines.orders import FrameOrder, ShuffledFrames, ShuffledShards

WINDOW = 16


def milliseconds(action: Callable[[], object]) -> float:
    """CPU time of one call in ms, which other work on the machine disturbs less than wall time."""
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start)


def describe(name: str, make: Callable[[], FrameOrder], batch_size: int, num_steps: int) -> None:
    """Print the costs of an order in ms, and its memory in MiB."""
    order = make()
    first = milliseconds(lambda: order.frames(0, batch_size))
    others = [milliseconds(lambda step=step: order.frames(step, batch_size)) for step in range(1, num_steps)]
    late = make()
    resumed = milliseconds(lambda: late.frames(num_steps // 2, batch_size))
    tracemalloc.start()
    traced = make()
    traced.frames(0, batch_size)
    held, peak = (size / 2**20 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    print(
        f"{name}: first batch {first:.1f} ms, others {np.median(others):.3f} (median) to {max(others):.1f}, "
        f"resumption {resumed:.1f}, memory {held:.1f} MiB (peak {peak:.1f})"
    )


def describe_reading(source: DepthDataset, shard_frames: int) -> None:
    """Print the time of a frame of the data set itself, and of its shards, in ms."""
    order = np.random.default_rng(0).permutation(min(len(source), WINDOW * shard_frames))[:500]

    def read(dataset: DepthDataset) -> float:
        return milliseconds(lambda: [dataset[int(frame)] for frame in order]) / len(order)

    with tempfile.TemporaryDirectory() as scratch:
        sets: dict[str, DepthDataset] = {"the data set": source}
        for kind in ShardKind:
            pack(source, Path(scratch, kind), kind, shard_frames, "benchmark")
            sets[str(kind)] = ShardDataset(Path(scratch, kind))
        for name, dataset in sets.items():
            read(dataset)  # into the page cache
            print(f"{name}: {read(dataset):.2f} ms a frame")
        tar = Path(scratch, ShardKind.WEBDATASET, "shard-000000.tar")
        beside, scanned = milliseconds(lambda: TarShard(tar).close()), milliseconds(lambda: tar_index(tar))
        num_frames = len(np.load(index_path(tar)))
        print(f"opening a tar of {num_frames} frames: {beside:.1f} ms with its index, {scanned:.1f} without")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--shard-frames", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--format", default="folder")
    given = parser.parse_args()
    if given.read is not None:
        describe_reading(open_dataset(given.format, given.read), given.shard_frames)
        return
    sizes = [given.shard_frames] * (given.frames // given.shard_frames)
    print(f"{given.frames} frames in {len(sizes)} shards, batches of {given.batch}, {given.steps} steps")
    describe("all frames", lambda: ShuffledFrames(given.frames, (0, 0)), given.batch, given.steps)
    for lanes in (1, 8):
        name = f"shards, windows of {WINDOW}, {lanes} lane{'s' * (lanes > 1)}"
        describe(name, lambda lanes=lanes: ShuffledShards(sizes, lanes, WINDOW, (0, 0)), given.batch, given.steps)


if __name__ == "__main__":
    main()
