"""What an export costs: wall time, processor time and peak memory of `mvde export`, against the size of the weights.

    python benchmarks/export_cost.py                         # SigLIP base at 896, random weights
    python benchmarks/export_cost.py --res 448 --config configs/nano.yaml

Prints one line of JSON. The peak is the resident set of the exporting process (``ru_maxrss``, as `/usr/bin/time -v`
shows it), libraries included; all weights are float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--res", default="896")
    parser.add_argument("--opset", default="23")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.config, arguments.res, arguments.opset, Path(folder))))


def measure(config: str, res: str, opset: str, folder: Path) -> dict[str, object]:
    """Cost of one export into ``folder``, run as a user would run it."""
    command = [sys.executable, "-m", "mvde", "export", "--config", config, "--random-weights"]
    started, load = time.perf_counter(), os.getloadavg()[0]
    subprocess.run([*command, "--res", res, "--opset", opset, "--out", str(folder)], check=True, stdout=sys.stderr)
    wall_s = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    manifest = json.loads(next(folder.glob("*.json")).read_text())
    weights_bytes = manifest["file"]["size_bytes"] + sum(file["size_bytes"] for file in manifest.get("companions", []))
    return {
        "name": manifest["name"],
        "resolution": manifest["inputs"][0]["shape"][1:3],
        "wall_s": round(wall_s, 1),
        "processor_s": round(used.ru_utime + used.ru_stime, 1),
        "load_before": round(load, 1),
        "num_cores": len(os.sched_getaffinity(0)),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
        "weights_mb": round(weights_bytes / 1e6),
        "peak_over_weights": round(used.ru_maxrss * 1024 / weights_bytes, 2),
        "num_photos": len(manifest["parity"]["photos"]),
        "max_rel": manifest["parity"]["max_rel"],
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "tools": manifest["tools"],
    }


if __name__ == "__main__":
    main()
