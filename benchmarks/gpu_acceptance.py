"""Run every check that needs an NVIDIA GPU and write a report.

    python benchmarks/gpu_acceptance.py --out acceptance                  # the nano model at 192 and 448
    python benchmarks/gpu_acceptance.py --export-dir export --out there   # existing graphs

Parity of every supported engine id with its fp32 graph, the tests marked `gpu`, latency end to end and of the GPU,
compute-sanitizer, and the C++ runtime. Writes `report.json` and `report.md`; the exit status is 1 if a check failed.
Checks that cannot run on this machine (no compute-sanitizer, no C++ headers) are reported as not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime")
PHOTO = ROOT / "mvde" / "assets" / "photos" / "coffee.jpg"
SANITIZER_TOOLS = ("memcheck", "initcheck", "synccheck", "racecheck")


@dataclass
class Check:
    """Outcome of a check; ``state`` is passed, failed or "not run", ``note`` the reason, ``details`` the data."""

    name: str
    state: str = "passed"
    note: str = ""
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


class NotRun(Exception):  # noqa: N818 - not an error: the check is skipped
    """The check cannot run on this machine; the message is the reason."""


def main() -> int:
    """Run all checks and write the report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("acceptance"), help="output directory for engines and report")
    parser.add_argument("--export-dir", type=Path, help="exported graphs; default: export nano at --res")
    parser.add_argument("--res", action="append", help="resolution to export; repeatable. Default: 192 and 448")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of benchmark per engine")
    arguments = parser.parse_args()
    machine = require_gpu()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    export_dir = arguments.export_dir or out / "export"
    checks = []
    if arguments.export_dir is None:
        checks.append(run_check("export", lambda: export(export_dir, arguments.res or ["192", "448"])))
    for engine_id in engine_ids(machine):
        checks.append(run_check(f"parity {engine_id}", lambda engine_id=engine_id: build(engine_id, export_dir, out)))
    checks += [
        run_check("tests marked gpu", gpu_tests),
        run_check("timing", lambda: timing(out, arguments.duration)),
        *(run_check(f"compute-sanitizer {tool}", lambda tool=tool: sanitize(tool, out)) for tool in SANITIZER_TOOLS),
        run_check("C++ runtime", lambda: cpp_runtime(out)),
    ]
    write_report(out, machine, checks)
    print(f"{out / 'report.md'}: {sum(check.state == 'passed' for check in checks)} of {len(checks)} checks passed")
    return 1 if any(check.state == "failed" for check in checks) else 0


def require_gpu() -> dict[str, Any]:
    """Report of `mvde doctor` with the GPU's facts added; exits with the reason if there is no GPU."""
    from mvde.cuda.gpu import find_gpu, why_no_gpu

    gpu = find_gpu()
    if gpu is None:
        sys.exit(f"gpu_acceptance: error: this needs an NVIDIA GPU, but {why_no_gpu()}; nothing was checked")
    facts: dict[str, Any] = json.loads(mvde("doctor", "--json", "-"))
    return {**facts, "gpu": asdict(gpu)}


def engine_ids(machine: dict[str, Any]) -> list[str]:
    """Engine ids of the GPU backends that work on this machine."""
    return [engine["id"] for engine in machine["engines"] if engine["works"] and engine["id"].split(":")[0] in BACKENDS]


def run_check(name: str, work: Callable[[], dict[str, Any]]) -> Check:
    """Run a check; returns its measurements, or the reason it failed or was not run."""
    print(f"{name} ...", flush=True)
    check, started = Check(name), time.perf_counter()
    try:
        check.details = work()
    except NotRun as reason:
        check.state, check.note = "not run", str(reason)
    except Exception as error:  # noqa: BLE001 - any error fails this check; the others still run
        check.state, check.note = "failed", " ".join(str(error).split())[:2000]
    check.seconds = round(time.perf_counter() - started, 1)
    print(f"  {check.state} ({check.seconds} s) {check.note}", flush=True)
    return check


def export(folder: Path, resolutions: list[str]) -> dict[str, Any]:
    """Export the shipped model; returns the graphs' file names."""
    mvde("export", *(word for size in resolutions for word in ("--res", size)), "--out", str(folder))
    return {"graphs": sorted(path.name for path in folder.glob("*.onnx"))}


def build(engine_id: str, export_dir: Path, out: Path) -> dict[str, Any]:
    """Build every exported graph twice; returns parity, tolerance and network from the manifests, by engine."""
    from mvde.artifact import load_engine_artifact

    command = ["build", "--engine", engine_id, "--export-dir", str(export_dir), "--out", str(out / "engines")]
    mvde(*command, "--verify-builds", "2", "--accept-known-bad")
    backend, precision = engine_id.split(":")
    found = {}
    for path in sorted((out / "engines").glob(f"*-{backend}-{precision}*/engine.json")):
        manifest = load_engine_artifact(path).manifest
        parity, record = manifest.parity, manifest.engine
        found[path.parent.name] = {
            "executed_precision": record.executed_precision,
            **(asdict(parity.measured) if parity.measured is not None else {}),
            "tolerance": asdict(parity.tolerance),
            "network": asdict(record.cuda.network) if record.cuda is not None else None,
            "size_bytes": manifest.file.size_bytes,
        }
    return found


def gpu_tests() -> dict[str, Any]:
    """Run the tests marked `gpu`. Raises NotRun if all of them were skipped."""
    arguments = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-500:]
    if done.returncode != 0:
        raise RuntimeError(f"{summary}: {done.stdout[-1500:]}")
    if " passed" not in summary:
        raise NotRun(f"every test was skipped: {summary}")
    return {"summary": summary}


def timing(out: Path, duration_s: float) -> dict[str, Any]:
    """Report of `mvde bench` on every engine."""
    target = out / "bench.json"
    mvde("bench", "--engine-dir", str(out / "engines"), "--duration", str(duration_s), "--json", str(target))
    report: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return report


def sanitize(tool: str, out: Path) -> dict[str, Any]:
    """Run the smallest TensorRT engine under a compute-sanitizer tool."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        raise NotRun("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    engine = smallest_engine(out)
    run = [sys.executable, "-m", "mvde", "run", str(PHOTO), "--engine", str(engine), "--out", str(out / "sanitized")]
    command = [sanitizer, "--tool", tool, "--error-exitcode", "77", *run]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return {"engine": engine.name}


def cpp_runtime(out: Path) -> dict[str, Any]:
    """Build the C++ example and compare its depth and statistics with Python's on the same engine.

    CMake gets the arguments in the environment variable TENSORRT_ARGUMENTS (`-DTensorRT_INCLUDE_DIR=...
    -DTensorRT_LIBRARY=...`, or those of TensorRT-RTX).
    """
    import numpy as np
    from PIL import Image

    import mvde

    given = os.environ.get("TENSORRT_ARGUMENTS", "").split()
    if not given:
        raise NotRun("set TENSORRT_ARGUMENTS to CMake's arguments for TensorRT's headers and library")
    engine, folder = smallest_engine(out), out / "native"
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", "-DMVDE_BUILD_EXAMPLES=ON"]
    checked([*configure, "-DMVDE_BUILD_TENSORRT=ON", *given])
    checked(["cmake", "--build", str(folder), "--parallel"])
    image = Image.open(PHOTO).convert("RGB")
    image.save(out / "photo.ppm")
    files = [str(out / name) for name in ("photo.ppm", "depth.f32", "stats.f32")]
    checked([str(next(folder.rglob("infer"))), str(engine), *files, "stretch"])
    with mvde.DepthRuntime.load(engine) as runtime:
        result = runtime.infer(np.asarray(image))
    depth, stats = (np.fromfile(path, np.float32) for path in files[1:])
    np.testing.assert_allclose(stats, result.stats.ravel(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(depth, result.depth.ravel(), rtol=1e-5)
    return {"engine": engine.name, "max_depth_difference_m": float(np.abs(depth - result.depth.ravel()).max())}


def smallest_engine(out: Path) -> Path:
    """Folder of the smallest TensorRT engine built."""
    plans = sorted((out / "engines").glob("*/engine.plan"), key=lambda path: path.stat().st_size)
    if not plans:
        raise NotRun("no TensorRT engine was built")
    return plans[0].parent


def write_report(out: Path, machine: dict[str, Any], checks: list[Check]) -> None:
    """Write `report.json` (full) and `report.md` (summary)."""
    report = {"machine": machine, "checks": [asdict(check) for check in checks]}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    gpu, libraries = machine["gpu"], machine["libraries"]
    versions = ", ".join(
        f"{name} {version}" for name, version in libraries.items() if "tensorrt" in name or "cuda" in name
    )
    lines = [
        "# GPU acceptance",
        "",
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, driver for CUDA {gpu['driver_cuda']}; "
        f"{versions}",
        "",
        "| check | state | seconds | note |",
        "|---|---|---|---|",
        *(f"| {check.name} | {check.state} | {check.seconds} | {_cell(check)} |" for check in checks),
    ]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(check: Check) -> str:
    """Note of a check, or its parity per engine, escaped for a Markdown cell."""
    parities = [
        f"{name}: {facts['executed_precision']}, relative error mean {facts['mean_rel']:.1e}, "
        f"max {facts['max_rel']:.1e}"
        for name, facts in check.details.items()
        if isinstance(facts, dict) and "mean_rel" in facts
    ]
    return (check.note or "; ".join(parities)).replace("|", "/")[:400]


def mvde(*arguments: str) -> str:
    """Standard output of the mvde command line, run in a child process."""
    return checked([sys.executable, "-m", "mvde", *arguments])


def checked(command: list[str]) -> str:
    """Standard output of a command. Raises RuntimeError with the tail of its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:6])} ...: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
