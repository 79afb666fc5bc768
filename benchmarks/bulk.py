"""Rates and costs of `mvde stats` against bare loops on decoded pictures.

    python benchmarks/bulk.py engines/nano-192x192-openvino-fp32            # every figure below, in minutes
    python benchmarks/bulk.py engines/nano-192x192-openvino-fp32 --figures steady row --data photos
    python benchmarks/bulk.py engines/nano-192x192-openvino-fp32 --soak 20000   # memory over many pictures

One line of JSON a figure:

- `steady`: pictures a second of a run in processes, from its first finished shard to its last, over the rate of as many
  bare loops (one process each, an engine of one thread, pictures decoded before), in turns;
- `first`: seconds of a run over one picture, from the start of the command to its end, locally and with Ray;
- `listing`: seconds to cut a list of a million paths into shards, and its peak memory;
- `row`: bytes a picture of the Parquet files, float16;
- `memory`: proportional memory of all processes with one worker and with two; `weights_*` are the engine's file, and
  with two workers the sums of what each maps of it and of each one's proportional part, which is one copy if shared;
- `soak`: anonymous memory of a worker over its shards: last quarter over second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvde.assets import sample_photos
from mvde.bulk.inputs import InputOptions, Shard, list_shards
from mvde.bulk.run import StatsOptions, compute_stats, plan
from mvde.bulk.work import ShardWorker, open_engine
from mvde.image import read_image
from mvde.runtime.depth import DepthRuntime

SIZE = (480, 640)
SOAK_SIZE = (240, 320)
FIGURES = ("steady", "first", "listing", "row", "memory")
LOOP_PICTURES = 64


def main() -> None:
    """Measure and print one line of JSON for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path, help="folder of a built engine")
    parser.add_argument("--pictures", type=int, default=1500, help="pictures of a run")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--soak", type=int, metavar="N", help="only the memory of one worker over N pictures")
    parser.add_argument("--no-ray", action="store_true", help="leave the figures of Ray out")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="what to measure; default: all")
    parser.add_argument("--data", type=Path, help="folder of pictures; default: crops of the bundled ones")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of `steady`, of which the median is given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.soak:
            pictures = write_pictures(folder / "pictures", 1000, SOAK_SIZE)
            say("soak", **soak(arguments.engine, pictures, folder, arguments.soak))
            return
        pictures = arguments.data or write_pictures(folder / "pictures", arguments.pictures, SIZE)
        measured = {
            "steady": lambda: steady(arguments.engine, pictures, folder, arguments.workers, arguments.rounds),
            "first": lambda: first(arguments.engine, pictures, folder, with_ray=not arguments.no_ray),
            "listing": lambda: listing(folder),
            "row": lambda: row_bytes(arguments.engine, pictures, folder),
            "memory": lambda: memory(arguments.engine, pictures, folder),
        }
        for name in arguments.figures:
            say(name, **measured[name]())


def say(figure: str, **values: Any) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, **values}), flush=True)


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write JPEGs of a size (H, W): crops of the bundled photographs with noise, so that no two are equal."""
    from PIL import Image

    folder.mkdir()
    photos = [Image.fromarray(read_image(path)).resize((size[1] + 64, size[0] + 64)) for path in sample_photos()]
    for number in range(count):
        random = np.random.default_rng(number)
        left, top = (int(one) for one in random.integers(0, 64, 2))
        crop = photos[number % len(photos)].crop((left, top, left + size[1], top + size[0]))
        noisy = np.asarray(crop, np.int16) + random.integers(-8, 9, (*size, 3), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.jpg", quality=90)
    return folder


def steady(engine: Path, pictures: Path, folder: Path, workers: int, rounds: int) -> dict[str, Any]:
    """Rate of a run over that of bare loops, in turns; median of the rounds."""
    ours, bare = [], []
    for number in range(rounds):
        bare.append(bare_rate(engine, pictures, workers))
        ours.append(run_rate(engine, pictures, folder / f"steady-{number}", workers))
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    count = sum(1 for _ in pictures.iterdir())
    return {
        "workers": workers,
        "pictures": count,
        "pictures_per_s": ours,
        "bare_per_s": bare,
        "ratio": float(np.median(ratios)),
    }


def run_rate(engine: Path, pictures: Path, out: Path, workers: int) -> float:
    """Pictures a second between the first finished shard and the last."""
    seen: list[tuple[float, int]] = []
    compute_stats(
        [str(pictures)],
        engine,
        out,
        input_options=InputOptions(size=50),
        num_workers=workers,
        on_report=lambda report: seen.append((time.perf_counter(), report.rows)),  # type: ignore[union-attr]
    )
    return sum(rows for _, rows in seen[1:]) / (seen[-1][0] - seen[0][0])


def bare_rate(engine: Path, pictures: Path, workers: int) -> float:
    """Pictures a second of as many processes with an engine of one thread, pictures decoded before."""
    context = multiprocessing.get_context("spawn")
    begin, rates = context.Barrier(workers), context.Queue()
    loops = [context.Process(target=bare_loop, args=(engine, pictures, begin, rates)) for _ in range(workers)]
    for loop in loops:
        loop.start()
    total = sum(rates.get() for _ in loops)
    for loop in loops:
        loop.join()
    return float(total)


def bare_loop(engine: Path, pictures: Path, begin: Any, rates: Any) -> None:
    """Decode, wait for the others, and put the rate of inference alone."""
    images = [read_image(path) for path in sorted(pictures.iterdir())[:LOOP_PICTURES]]
    with DepthRuntime.load(engine, threads=1) as runtime:
        runtime.patch_stats(images[0])
        begin.wait()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 10:
            for image in images:
                runtime.patch_stats(image)
            count += len(images)
        rates.put(count / (time.perf_counter() - started))


def first(engine: Path, pictures: Path, folder: Path, *, with_ray: bool) -> dict[str, float]:
    """Seconds of the command over one picture."""
    found = {}
    for name, options in {"local": ["--workers", "1"], **({"ray": ["--ray", "local"]} if with_ray else {})}.items():
        command = [sys.executable, "-m", "mvde", "stats", str(pictures), "-e", str(engine), "--limit", "1"]
        started = time.perf_counter()
        subprocess.run([*command, "-o", str(folder / f"first-{name}"), *options], check=True, capture_output=True)
        found[f"{name}_s"] = time.perf_counter() - started
    return found


def listing(folder: Path, count: int = 1_000_000) -> dict[str, float]:
    """Seconds and peak memory of cutting a list of a million paths."""
    path = folder / "paths.txt"
    path.write_text("".join(f"part-{n // 1000:05d}/{n:09d}.jpg\n" for n in range(count)))
    started = time.perf_counter()
    num_shards = sum(1 for _ in list_shards([str(path)], InputOptions()))
    seconds = time.perf_counter() - started
    tracemalloc.start()
    assert sum(1 for _ in list_shards([str(path)], InputOptions())) == num_shards
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"paths": count, "seconds": seconds, "peak_mib": peak / 2**20}


def row_bytes(engine: Path, pictures: Path, folder: Path) -> dict[str, float]:
    """Bytes of a picture's row in shards of a thousand pictures, the default."""
    from pyarrow import parquet

    out = folder / "row"
    compute_stats([str(pictures)], engine, out, input_options=InputOptions(limit=1000))
    paths = list(out.glob("*.parquet"))
    rows = sum(parquet.read_metadata(path).num_rows for path in paths)
    return {"rows": rows, "bytes_per_row": sum(path.stat().st_size for path in paths) / rows}


def memory(engine: Path, pictures: Path, folder: Path) -> dict[str, float]:
    """Proportional memory of a run's processes in MiB: shared pages count once."""
    found = {"weights_file_mib": sum(path.stat().st_size for path in engine.iterdir()) / 2**20}
    for workers in (1, 2):
        peaks = [0, 0, 0]
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(peaks, done))
        watcher.start()
        run_rate(engine, pictures, folder / f"memory-{workers}", workers)
        done.set()
        watcher.join()
        found[f"workers_{workers}_mib"] = peaks[0] / 1024
    return {**found, "weights_mapped_mib": peaks[1] / 1024, "weights_proportional_mib": peaks[2] / 1024}


def watch(peaks: list[int], done: threading.Event) -> None:
    """Keep the largest sums of this process and its children in KiB: memory, the engine's file mapped, its part."""
    while not done.wait(0.2):
        pids = (os.getpid(), *children())
        mapped = [engine_kib(pid) for pid in pids]
        sums = sum(map(proportional_kib, pids)), sum(rss for rss, _ in mapped), sum(pss for _, pss in mapped)
        peaks[:] = [max(pair) for pair in zip(peaks, sums, strict=True)]


def engine_kib(pid: int) -> tuple[int, int]:
    """Resident and proportional KiB of the engine's file, which is memory without a name on disk (memfd)."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        return 0, 0
    sums, is_engine = {"Rss:": 0, "Pss:": 0}, False
    for line in lines:
        name, *values = line.split()
        if not name.endswith(":"):
            is_engine = "/memfd:mvde:" in line
        elif is_engine and name in sums:
            sums[name] += int(values[0])
    return sums["Rss:"], sums["Pss:"]


def children() -> Iterator[int]:
    """Processes that this one has started."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                yield int(path.name)
        except OSError:
            continue


def proportional_kib(pid: int) -> int:
    """Proportional memory of a process in KiB; 0 if it has ended."""
    return field_kib(pid, "Pss:")


def field_kib(pid: int, name: str) -> int:
    """A field of a process's memory in KiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


def soak(engine: Path, pictures: Path, folder: Path, count: int) -> dict[str, float]:
    """Anonymous memory of a worker after each shard: medians of the second and the last quarter, in MiB."""
    work = plan(engine, folder / "soak", InputOptions(size=100), StatsOptions())
    worker = ShardWorker(work, open_engine(work.engine))
    used = []
    for number in range(count // 100):
        for shard in shards_of(pictures, number):
            worker.run(shard)
            used.append(field_kib(os.getpid(), "Anonymous:"))
    quarter = len(used) // 4
    second, last = np.median(used[quarter : 2 * quarter]), np.median(used[-quarter:])
    return {
        "pictures": count,
        "second_quarter_mib": second / 1024,
        "last_quarter_mib": last / 1024,
        "ratio": last / second,
    }


def shards_of(pictures: Path, number: int) -> Sequence[Shard]:
    """One shard of a hundred pictures under a name of its own; the pictures come again and again."""
    shards = list(list_shards([str(pictures)], InputOptions(size=100)))
    chosen = shards[number % len(shards)]
    return [Shard(f"soak-{number:06d}", chosen.kind, chosen.location, chosen.files)]


if __name__ == "__main__":
    main()
