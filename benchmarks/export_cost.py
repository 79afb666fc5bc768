"""Cost of `mvde export`: wall time, CPU time and peak memory, relative to the size of the weights.

    python benchmarks/export_cost.py                         # SigLIP base at 896, random weights
    python benchmarks/export_cost.py --res 448 --config configs/nano.yaml
    python benchmarks/export_cost.py --res 518x686 --model DIR   # a depth model of transformers

Prints one line of JSON. Peak memory covers the process and all its children, libraries included: the largest sum of
their resident sets, sampled every 20 ms, or the largest single one (``ru_maxrss``, which is exact) if that is more.
Shared pages count once per process. All weights are float32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mvde.artifact import list_graphs

SECONDS_BETWEEN_LOOKS = 0.02


def main() -> None:
    """Measure one export and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--model", help="depth model of transformers, instead of --config")
    parser.add_argument("--res", default="896")
    parser.add_argument("--opset", default="23")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = ["--config", arguments.config, "--random-weights"]
        if arguments.model is not None:
            source = ["--model", arguments.model]
        print(json.dumps(measure(source, arguments.res, arguments.opset, Path(folder))))


def measure(source: list[str], res: str, opset: str, folder: Path) -> dict[str, object]:
    """Cost of one export into ``folder`` through the command line; ``source`` are the options that name the model."""
    command = [sys.executable, "-m", "mvde", "export", *source]
    started, load = time.perf_counter(), os.getloadavg()[0]
    process = subprocess.Popen([*command, "--res", res, "--opset", opset, "--out", str(folder)], stdout=sys.stderr)
    tree_bytes = peak_of_tree_bytes(process)
    wall_s = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    single_bytes = used.ru_maxrss * 1024
    peak_bytes = max(tree_bytes, single_bytes)
    (graph,) = list_graphs(folder)
    manifest = graph.manifest
    weights_bytes = manifest.file.size_bytes + sum(file.size_bytes for file in manifest.companions)
    return {
        "name": manifest.name,
        "resolution": list(manifest.resolution),
        "grid": list(manifest.grid),
        "wall_s": round(wall_s, 1),
        "processor_s": round(used.ru_utime + used.ru_stime, 1),
        "load_before": round(load, 1),
        "num_cores": len(os.sched_getaffinity(0)),
        "peak_mb": round(peak_bytes / 1e6),
        "peak_of_one_process_mb": round(single_bytes / 1e6),
        "weights_mb": round(weights_bytes / 1e6),
        "peak_over_weights": round(peak_bytes / weights_bytes, 2),
        "num_photos": len(manifest.parity.photos),
        "max_rel": manifest.parity.measured.max_rel,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "tools": manifest.tools,
    }


def peak_of_tree_bytes(process: subprocess.Popen[bytes]) -> int:
    """Peak of the summed resident sets of a process and its descendants until it exits, in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident_bytes(pid) for pid in descendants(process.pid)))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return peak


def descendants(pid: int) -> list[int]:
    """Process ids of a process and its current descendants."""
    found = [pid]
    with contextlib.suppress(OSError):  # exited meanwhile
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found += descendants(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """Resident set of a process in bytes; 0 if it has exited."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # exited meanwhile
        return 0


if __name__ == "__main__":
    main()
