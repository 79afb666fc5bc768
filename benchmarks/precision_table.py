"""Precisions compared on TensorRT-RTX: gate measurements, parsed network, plan size and build time.

    mvde export --res 192
    python benchmarks/precision_table.py --export-dir export --name nano
    python benchmarks/precision_table.py --export-dir export --name base --precision fp16 --precision int8

Builds `tensorrt-rtx:PRECISION` without a device for one compute capability through the command line, and prints a
Markdown table from the manifests; `--json` has all figures. Needs no GPU; the engines are not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mvde.artifact import load_engine_artifact
from mvde.precision import Precision
from mvde.records import GateRecord

PRECISIONS = tuple(str(precision) for precision in Precision)
HEAD = (
    "precision",
    "AbsRel change",
    "relative error: mean",
    "p99",
    "max",
    "nodes in it",
    "attentions",
    "plan",
    "build",
)


def main() -> None:
    """Build every precision and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export-dir", default="export")
    parser.add_argument("--name", help="model, if several were exported")
    parser.add_argument("--res", help="resolution, if several were exported")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="repeatable. Default: all")
    parser.add_argument("--compute-capability", default="8.9")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    rows = []
    for precision in arguments.precision or PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(precision, arguments, Path(folder)))
    print("| " + " | ".join(HEAD) + " |")
    print("|" + "---|" * len(HEAD))
    for row in rows:
        print("| " + " | ".join(cells(row)) + " |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(precision: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures of one build; only ``refused``, the error message, if the build failed."""
    command = [sys.executable, "-m", "mvde", "build", "--engine", f"tensorrt-rtx:{precision}", "--out", str(folder)]
    command += ["--export-dir", arguments.export_dir, "--without-device"]
    command += ["--set", f"compute_capability={arguments.compute_capability}"]
    for option in ("name", "res"):
        if getattr(arguments, option):
            command += [f"--{option}", getattr(arguments, option)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"precision": precision, "refused": done.stderr.strip().splitlines()[-1]}
    (path,) = folder.glob("*/engine.json")
    manifest = load_engine_artifact(path).manifest
    lowering, built = manifest.lowering, manifest.engine.cuda
    assert built is not None, f"{path} has no record of the network parsed by TensorRT-RTX"
    return {
        "precision": precision,
        "gate": gate_figures(lowering.gate) if lowering is not None and lowering.gate is not None else None,
        "kept": [asdict(kept) for kept in lowering.kept] if lowering is not None else [],
        "network": asdict(built.network),
        "plan_bytes": manifest.file.size_bytes,
        "build_s": built.build_s,
        "library": manifest.engine.library_version,
    }


def gate_figures(gate: GateRecord) -> dict[str, Any]:
    """Tolerance of the gate, and its measurements on each set of images."""
    runs = [{**asdict(run), **asdict(run.measured), "abs_rel_change": run.abs_rel_change} for run in gate.runs]
    return {"tolerance": asdict(gate.tolerance), "runs": runs}


def cells(row: dict[str, Any]) -> list[str]:
    """Cells of a table row, with the gate's worst run."""
    if "refused" in row:
        return [row["precision"], row["refused"].replace("|", "/"), *[""] * (len(HEAD) - 2)]
    runs = (row["gate"] or {}).get("runs", [])
    keys = ("abs_rel_change", "mean_rel", "p99_rel", "max_rel")
    gate = [f"{max(abs(run[key]) for run in runs):.1e}" if runs else "" for key in keys]
    network = row["network"]
    nodes = network["num_by_dtype"]
    share = nodes.get(row["precision"], 0) / max(1, sum(nodes.values()))
    attentions = network["num_attention"] + network["num_softmax"]
    return [
        row["precision"],
        *gate,
        f"{share:.0%}",
        f"{network['num_attention']} of {attentions}",
        f"{row['plan_bytes'] / 1e6:.1f} MB",
        f"{row['build_s']:.1f} s",
    ]


if __name__ == "__main__":
    main()
