"""What each precision costs and promises: the gate's figures, what TensorRT-RTX makes of the graph, sizes, build time.

    mvde export --res 192
    python benchmarks/precision_table.py --export-dir export --name nano
    python benchmarks/precision_table.py --export-dir export --name base --precision fp16 --precision int8

Builds `tensorrt-rtx:PRECISION` without a device for one compute capability, each as a user would, and prints a Markdown
table out of the manifests; `--json` has all figures. No GPU is needed, and none of the engines has been run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export-dir", default="export")
    parser.add_argument("--name", help="the model, where several were exported")
    parser.add_argument("--res", help="the resolution, where several were exported")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="repeatable; all by default")
    parser.add_argument("--compute-capability", default="8.9")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
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
    """Figures of one build; ``refused`` is what the build said where it made none."""
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
    manifest = json.loads(path.read_text(encoding="utf-8"))
    facts, promised = manifest["engine"]["facts"], manifest.get("precision")
    return {
        "precision": precision,
        "gate": promised["gate"] if promised else None,
        "kept": promised.get("kept", []) if promised else [],
        "network": facts["network"],
        "plan_bytes": manifest["file"]["size_bytes"],
        "build_s": facts["build_s"],
        "library": manifest["engine"]["library_version"],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table; the gate's worst run stands for all of them."""
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
