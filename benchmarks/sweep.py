"""Scaling of an engine with resolution: latency, operations and GFLOP/s.

    python benchmarks/sweep.py                                       # the shipped model, 224 to 1792
    python benchmarks/sweep.py --config configs/base.yaml --res 224 --res 448 --res 896 --json benchmarks/sweep.jsonl

Times the network alone, compiled from the folded graph, and takes the fastest frame. Time per operation should not rise
with the resolution. A multiply-add counts as two operations.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fold_ledger import load_model, open_openvino

from mvde.resolution import parse_resolution

RESOLUTIONS = ("224", "448", "896", "1344", "1792")


def main() -> None:
    """Measure every resolution and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, help="configuration for a model with random weights. Default: the shipped model"
    )
    parser.add_argument("--res", action="append")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="time budget per resolution; 0 only writes the graphs"
    )
    parser.add_argument("--folder", type=Path, help="keep the graphs in this folder and reuse them")
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per resolution")
    arguments = parser.parse_args()
    name = arguments.config.stem if arguments.config else "nano"
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        graphs = {res: write_graph(arguments.config, name, res, folder) for res in arguments.res or RESOLUTIONS}
        rows = [measure(graph, arguments) for graph in graphs.values()] if arguments.seconds else []
    if rows:
        report(rows, f"{name}, openvino:{arguments.precision}", list(graphs))
    if arguments.json and rows:
        store(arguments.json, rows, name, list(graphs), arguments.precision)


def write_graph(config: Path | None, name: str, res: str, folder: Path) -> Path:
    """Folded graph at a resolution, with its number of operations in a ``.flops`` file beside it."""
    import onnx_ir as ir

    from mvde.export.graph.flops import count_flops
    from mvde.export.torch_graph import traced

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{res}.sweep.onnx"
    if not path.with_suffix(".flops").exists():
        with traced(load_model(config), parse_resolution(res)) as graph:
            flops = count_flops(graph)
            ir.save(graph, path)
        path.with_suffix(".flops").write_text(str(flops))
    return path


def measure(graph: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Latency of the fastest frame in ms (other load only adds to it), GFLOP and GFLOP/s."""
    frame = open_openvino(graph, arguments.precision)
    frame()
    best, started, num_frames = float("inf"), time.perf_counter(), 0
    while num_frames < 3 or time.perf_counter() - started < arguments.seconds:
        before = time.perf_counter()
        frame()
        best, num_frames = min(best, time.perf_counter() - before), num_frames + 1
    flops = int(graph.with_suffix(".flops").read_text())
    return {"ms": round(best * 1e3, 2), "gflop": round(flops / 1e9, 2), "gflop_per_s": round(flops / best / 1e9, 1)}


def report(rows: list[dict[str, Any]], title: str, resolutions: list[str]) -> None:
    """Print a Markdown table."""
    print(f"| {title} | ms | GFLOP | GFLOP/s | ps per operation |\n|---|---|---|---|---|")
    for res, row in zip(resolutions, rows, strict=True):
        per_operation = 1e3 / row["gflop_per_s"]
        print(f"| {res} | {row['ms']:.1f} | {row['gflop']:.1f} | {row['gflop_per_s']:.0f} | {per_operation:.2f} |")


def store(path: Path, rows: list[dict[str, Any]], name: str, resolutions: list[str], precision: str) -> None:
    """Append one JSON line per resolution, with the machine."""
    from mvde.bench.host import describe_machine

    machine = describe_machine()
    with path.open("a", encoding="utf-8") as stream:
        for res, row in zip(resolutions, rows, strict=True):
            engine = f"openvino:{precision}"
            stream.write(json.dumps({"graph": f"{name} {res}", "engine": engine, **row, "machine": machine}) + "\n")


if __name__ == "__main__":
    main()
