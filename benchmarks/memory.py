"""Peak memory of a runtime, relative to its engine's resident size.

    python benchmarks/memory.py engines/nano-448x448-openvino-bf16
    python benchmarks/memory.py engines/* --json benchmarks/memory.jsonl
    python benchmarks/memory.py engines/base-448x448-openvino-fp32 --workers 16

Each figure is measured in a fresh process, above its baseline after all imports. `engine` is the resident size of the
engine alone after the first frames: weights, activations and code. `peak` is the largest resident size of a process
that loads the runtime and infers depth and statistics, including transient allocations during loading, the depth maps
and the resizer's buffers. `ratio` is peak / engine. Resident size includes file-backed pages of the engine, which the
kernel can reclaim; `own` is the runtime's anonymous memory. Linux only.

An engine runs from a sealed, hashed copy in memory. Its cost is measured against mapping the file after hashing it:
`load` is the fastest load of five in ms, `kept` the memory that cannot be reclaimed (anonymous and sealed), each as
"sealed / mapped = ratio". `more` is the cost of another process that is handed the opened engine: its anonymous memory,
since sealed memory is shared. OpenVINO only.

With --workers N, N processes are spawned that load and run the one opened engine they are handed, then N that map the
engine's file. `load` is the slowest worker's time from the call to the first depth, `together` the sum of the workers'
proportional set sizes, in which a page shared by N processes counts 1/N for each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

NUM_FRAMES = 5
SIZE = (1080, 1920)
"""Height and width of the frames: Full HD."""


def main() -> None:
    """Measure every engine and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", type=Path, help="folders of built engines")
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per engine")
    parser.add_argument("--workers", type=int, help="measure only this many processes that share an engine")
    parser.add_argument("--child", choices=sorted({**_STAGES, **_LOADS}), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(in_this_process(arguments.engines[0], arguments.child)))
        return
    if arguments.workers:
        for folder in arguments.engines:
            print_workers(folder, arguments.workers)
        return
    print("| engine | engine alone, MiB | runtime's peak, MiB | ratio | own, MiB | load, ms | kept, MiB | more, MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in arguments.engines:
        row = measure(folder)
        sizes = f"{row['engine_mib']:.0f} | {row['peak_mib']:.0f} | {row['ratio']:.2f} | {row['own_mib']:.0f}"
        load = f"{row['load_ms']:.0f} / {row['mapped_load_ms']:.0f} = {row['load_ratio']:.2f}"
        kept = f"{row['kept_mib']:.0f} / {row['mapped_kept_mib']:.0f} = {row['kept_ratio']:.2f}"
        print(f"| {row['engine']} | {sizes} | {load} | {kept} | {row['more_mib']:.0f} |", flush=True)
        if arguments.json:
            store(arguments.json, row)


def measure(folder: Path) -> dict[str, Any]:
    """Engine size and peak of the runtime in MiB, their ratio, and the cost of sealing."""
    alone, whole = (in_child(folder, stage) for stage in ("engine", "runtime"))
    engine_bytes = alone["resident"] - alone["imported"]
    peak_bytes = whole["peak"] - whole["imported"]
    return {
        "engine": folder.name,
        "engine_mib": round(engine_bytes / 2**20, 1),
        "engine_peak_mib": round((alone["peak"] - alone["imported"]) / 2**20, 1),
        "runtime_mib": round((whole["resident"] - whole["imported"]) / 2**20, 1),
        "peak_mib": round(peak_bytes / 2**20, 1),
        "own_mib": round(whole["own"] / 2**20, 1),
        "ratio": round(peak_bytes / engine_bytes, 3),
        **cost_of_sealing(folder),
    }


def cost_of_sealing(folder: Path) -> dict[str, Any]:
    """Load time in ms, and unreclaimable memory and cost of one more process in MiB."""
    sealed, mapped = (in_child(folder, stage) for stage in ("engine", "mapped"))
    load_ms, mapped_load_ms = (in_child(folder, how)["load_us"] / 1e3 for how in _LOADS)
    return {
        "load_ms": round(load_ms, 1),
        "mapped_load_ms": round(mapped_load_ms, 1),
        "load_ratio": round(load_ms / mapped_load_ms, 3),
        "kept_mib": round(sealed["kept"] / 2**20, 1),
        "mapped_kept_mib": round(mapped["kept"] / 2**20, 1),
        "kept_ratio": round(sealed["kept"] / mapped["kept"], 3),
        "more_mib": round(sealed["own"] / 2**20, 1),
    }


def print_workers(folder: Path, count: int) -> None:
    """Print what ``count`` workers need that share one sealed copy, and that map the file."""
    from mvde.engines.opened import open_verified

    started = time.perf_counter()
    opened = open_verified(folder / "engine.json")
    print(
        f"{folder.name}, {opened.content.size_bytes / 2**20:.0f} MiB; opened in {time.perf_counter() - started:.2f} s"
    )
    print("| workers | share | load, s | together, MiB | per worker, MiB | anonymous per worker, MiB |")
    print("|---|---|---|---|---|---|")
    for name, load, source in (("a sealed copy", load_opened, opened), ("the mapped file", load_mapped, folder)):
        rows = of_workers(load, source, count)
        together = sum(row["pss"] for row in rows) / 2**20
        own = sum(row["anonymous"] for row in rows) / count / 2**20
        slowest = max(row["load_s"] for row in rows)
        print(f"| {count} | {name} | {slowest:.2f} | {together:.0f} | {together / count:.0f} | {own:.0f} |", flush=True)


def of_workers(load: Callable[[Any], Any], source: Any, count: int) -> list[dict[str, float]]:
    """Figures of ``count`` spawned processes, read while all of them hold the engine."""
    context = multiprocessing.get_context("spawn")
    barrier, rows = context.Barrier(count), context.SimpleQueue()
    workers = [context.Process(target=be_worker, args=(load, source, barrier, rows)) for _ in range(count)]
    for worker in workers:
        worker.start()
    found = [rows.get() for _ in workers]
    for worker in workers:
        worker.join()
    return found


def be_worker(load: Callable[[Any], Any], source: Any, barrier: Any, rows: Any) -> None:
    """Load and run the engine, wait for the others, and tell the sizes."""
    from mvde.engines.openvino.library import shared_core

    shared_core()
    started = time.perf_counter()
    engine = run_engine(source, load)
    load_s = time.perf_counter() - started
    barrier.wait()
    rows.put({"load_s": load_s, "pss": rollup_bytes("Pss"), "anonymous": rollup_bytes("Anonymous")})
    barrier.wait()  # nobody leaves before all are weighed
    engine.close()


def rollup_bytes(kind: str) -> int:
    """Memory of this process of one kind of /proc/self/smaps_rollup."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{kind}:"))) * 1024


def load_opened(opened: Any) -> Any:
    """Load the engine from the sealed memory that was handed over."""
    from mvde.engines.store import load_engine

    return load_engine(opened)[0]


def in_child(folder: Path, stage: str) -> dict[str, int]:
    """Figures of a stage, measured in a child process: bytes, or microseconds of a load."""
    command = [sys.executable, __file__, str(folder), "--child", stage]
    answer: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def in_this_process(folder: Path, stage: str) -> dict[str, int]:
    """Memory of this process in bytes: after imports, at the end and at its peak; or a load time in µs."""
    from mvde.engines.machine import peak_memory_bytes, resident_bytes
    from mvde.engines.openvino.library import shared_core
    from mvde.engines.store import load_engine  # noqa: F401 - imported before the baseline
    from mvde.runtime.depth import DepthRuntime  # noqa: F401

    shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # loads the plugin
    imported, own, shared = resident_bytes(), bytes_of("RssAnon"), bytes_of("RssShmem")
    if stage in _LOADS:
        return {"load_us": round(min(seconds_of(_LOADS[stage], folder) for _ in range(1 + NUM_FRAMES)) * 1e6)}
    kept = _STAGES[stage](folder)  # alive until measured
    sizes = {"imported": imported, "resident": resident_bytes(), "peak": peak_memory_bytes()}
    sizes["own"] = bytes_of("RssAnon") - own
    sizes["kept"] = sizes["own"] + bytes_of("RssShmem") - shared
    del kept
    return sizes


def seconds_of(load: Callable[[Path], Any], folder: Path) -> float:
    """Seconds to load an engine."""
    started = time.perf_counter()
    engine = load(folder)
    seconds = time.perf_counter() - started
    engine.close()
    return seconds


def bytes_of(kind: str) -> int:
    """Resident bytes of this process of one kind: RssAnon is anonymous memory, RssShmem shared or sealed memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(kind))) * 1024


def load_sealed(folder: Path) -> Any:
    """Load an engine into sealed memory."""
    from mvde.engines.store import load_engine

    return load_engine(folder / "engine.json")[0]


def load_mapped(folder: Path) -> Any:
    """Load an engine the former way: hash the file, then map it."""
    from mvde.artifact import load_engine_artifact
    from mvde.engines.opened import OpenedEngine
    from mvde.engines.store import load_engine

    artifact = load_engine_artifact(folder / "engine.json")
    content = SimpleNamespace(array=np.memmap(artifact.path, dtype=np.uint8, mode="c"))
    return load_engine(OpenedEngine(artifact.path, artifact.manifest, cast(Any, content)))[0]


def run_engine(folder: Any, load: Callable[[Any], Any] = load_sealed) -> Any:
    """Load an engine and run the first frames on it."""
    engine = load(folder)
    image = np.zeros((engine.info.batch, *engine.info.resolution, 3), np.uint8)
    for _ in range(NUM_FRAMES):
        engine.infer(image)
    return engine


def run_runtime(folder: Path) -> Any:
    """Load a runtime and run the first frames on it."""
    from mvde.runtime.depth import DepthRuntime

    runtime = DepthRuntime.load(folder / "engine.json")
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    for _ in range(NUM_FRAMES):
        runtime.infer(image)
    return runtime


def store(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a JSON lines file, with the machine."""
    from mvde.bench.host import describe_machine

    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**row, "machine": describe_machine()}) + "\n")


_LOADS = {"sealed load": load_sealed, "mapped load": load_mapped}
_STAGES: dict[str, Callable[[Path], Any]] = {
    "engine": run_engine,
    "runtime": run_runtime,
    "mapped": lambda folder: run_engine(folder, load_mapped),
}

if __name__ == "__main__":
    main()
