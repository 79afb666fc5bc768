"""How much memory a runtime needs at its peak, beside what its engine alone keeps.

    python benchmarks/memory.py engines/nano-448x448-openvino-bf16
    python benchmarks/memory.py engines/* --json benchmarks/memory.jsonl

Each figure is of a process of its own, above the same process with everything imported and nothing loaded. `engine` is
the resident size after the first frames of the engine alone, without a runtime: its weights, activations and code.
`peak` is the largest resident size of a process that loads the runtime and takes photographs to depth and statistics,
so that it counts what loading needs for a moment, the photographs' depths and the buffers of the resizer. `ratio` is
peak / engine. Resident size holds the pages of the engine's file that were read, which the system can take back when it
needs them; `own` is what the runtime keeps without them (anonymous memory). Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

NUM_FRAMES = 5
SIZE = (1080, 1920)
"""Of the photographs: a common camera's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", type=Path, help="folders of built engines")
    parser.add_argument("--json", type=Path, help="append the results to this file, a line per engine")
    parser.add_argument("--child", choices=sorted(_STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(in_this_process(arguments.engines[0], arguments.child)))
        return
    print("| engine | engine alone, MiB | runtime's peak, MiB | ratio | own, MiB |\n|---|---|---|---|---|")
    for folder in arguments.engines:
        row = measure(folder)
        sizes = f"{row['engine_mib']:.0f} | {row['peak_mib']:.0f} | {row['ratio']:.2f} | {row['own_mib']:.0f}"
        print(f"| {row['engine']} | {sizes} |", flush=True)
        if arguments.json:
            store(arguments.json, row)


def measure(folder: Path) -> dict[str, Any]:
    """MiB of the engine alone and of the runtime's peak, and their ratio."""
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
    }


def in_child(folder: Path, stage: str) -> dict[str, int]:
    """Bytes from a process that does nothing else."""
    command = [sys.executable, __file__, str(folder), "--child", stage]
    answer: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def in_this_process(folder: Path, stage: str) -> dict[str, int]:
    """Bytes of this process: with everything imported, at the end, and the most that there were."""
    from mvde.bench.host import peak_memory_bytes, resident_bytes
    from mvde.engines.openvino.library import shared_core
    from mvde.engines.store import load_engine  # noqa: F401 - imported before the first figure
    from mvde.runtime.depth import DepthRuntime  # noqa: F401

    shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # loads the plugin
    imported, own = resident_bytes(), anonymous_bytes()
    kept = _STAGES[stage](folder)  # alive until it is weighed
    sizes = {"imported": imported, "resident": resident_bytes(), "peak": peak_memory_bytes()}
    sizes["own"] = anonymous_bytes() - own
    del kept
    return sizes


def anonymous_bytes() -> int:
    """Resident memory of this process that no file stands for."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) * 1024


def run_engine(folder: Path) -> Any:
    from mvde.engines.store import load_engine

    engine, _ = load_engine(folder / "engine.json")
    image = np.zeros((engine.info.batch, *engine.info.resolution, 3), np.uint8)
    for _ in range(NUM_FRAMES):
        engine.infer(image)
    return engine


def run_runtime(folder: Path) -> Any:
    from mvde.runtime.depth import DepthRuntime

    runtime = DepthRuntime.load(folder / "engine.json")
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    for _ in range(NUM_FRAMES):
        runtime.infer(image)
    return runtime


def store(path: Path, row: dict[str, Any]) -> None:
    from mvde.bench.host import describe_machine

    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**row, "machine": describe_machine()}) + "\n")


_STAGES = {"engine": run_engine, "runtime": run_runtime}

if __name__ == "__main__":
    main()
