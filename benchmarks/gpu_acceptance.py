"""Run every check that needs an NVIDIA GPU and write a report.

    python benchmarks/gpu_acceptance.py --out acceptance                  # the nano model at 192 and 448
    python benchmarks/gpu_acceptance.py --export-dir export --out there   # existing graphs
    python benchmarks/gpu_acceptance.py --without-tensorrt                # a bare machine: kernels, torch, sanitizer

First the CUDA kernels: against the NumPy specification, their bandwidth, in CUDA graphs, on arrays and streams of
torch, beside torch and torch.compile, under compute-sanitizer. Then, unless --without-tensorrt: parity of every
supported engine id with its fp32 graph, the tests marked `gpu`, latency end to end and of the GPU, the C++ runtime.

Each result is appended to `results.jsonl` as it comes, and `report.json` and `report.md` are written anew; the exit
status is 1 if a check failed. Checks that cannot run on this machine (no compute-sanitizer, no torch) or for which no
time is left (--budget) are reported as not run. Each step of the kernels runs in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from gpu_report import NotRun, Report, run_check

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime")
PHOTO = ROOT / "mvde" / "assets" / "photos" / "coffee.jpg"
SANITIZER_TOOLS = ("memcheck", "initcheck", "synccheck", "racecheck")
STEPS_SCRIPT = Path(__file__).with_name("gpu_steps.py")
NOT_RUN = 3
"""Exit status of a step of gpu_steps.py that cannot run."""

STEP_LIMITS_S = {
    "compile": 30, "statistics": 30, "pictures": 20, "graph": 20, "bandwidth": 30, "arrays": 30, "session": 30,
    "torch": 60,
}  # fmt: skip
"""Longest time of each step in seconds; `torch` waits for two runs of torch.compile."""

SANITIZER_LIMIT_S = 40.0
DEFAULT_BUDGET_S = 170.0
"""All steps without TensorRT together: a session on a lent GPU lasts minutes."""

PACKAGES = (
    "tensorrt", "tensorrt-rtx-cu13", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "torch", "triton",
    "cupy-cuda13x", "onnxruntime-gpu", "numpy",
)  # fmt: skip


def main() -> int:
    """Run all checks and write the report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("acceptance"), help="output directory for engines and report")
    parser.add_argument("--export-dir", type=Path, help="exported graphs; default: export nano at --res")
    parser.add_argument("--res", action="append", help="resolution to export; repeatable. Default: 192 and 448")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of benchmark per engine")
    parser.add_argument("--without-tensorrt", action="store_true", help="only what needs no TensorRT and no mvde verb")
    parser.add_argument(
        "--budget", type=float, default=DEFAULT_BUDGET_S, metavar="S", help="seconds for all steps without TensorRT"
    )
    arguments = parser.parse_args()
    machine = require_gpu(arguments.without_tensorrt)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out, machine)
    for name, work in kernel_checks(arguments.budget, arguments.export_dir):
        report.add(run_check(name, work))
    if not arguments.without_tensorrt:
        for name, work in tensorrt_checks(machine, out, arguments):
            report.add(run_check(name, work))
    checks = report.checks
    print(f"{out / 'report.md'}: {sum(check.state == 'passed' for check in checks)} of {len(checks)} checks passed")
    return 1 if any(check.state == "failed" for check in checks) else 0


def require_gpu(without_tensorrt: bool = False) -> dict[str, Any]:
    """Facts of the machine; exits with the reason if there is no GPU.

    They are `mvde doctor`'s, or, on a machine without its packages, the GPU's and the versions of :data:`PACKAGES`.
    """
    sys.path.insert(0, str(ROOT))  # a bare machine has no installed mvde
    from mvde.cuda.gpu import find_gpu, why_no_gpu

    gpu = find_gpu()
    if gpu is None:
        sys.exit(f"gpu_acceptance: error: this needs an NVIDIA GPU, but {why_no_gpu()}; nothing was checked")
    facts: dict[str, Any] = {"libraries": installed(), "engines": []}
    if not without_tensorrt:
        facts = json.loads(mvde("doctor", "--json", "-"))
    return {**facts, "gpu": asdict(gpu)}


def installed() -> dict[str, str]:
    """Versions of the installed packages among :data:`PACKAGES`, and of Python."""
    versions = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


Named = tuple[str, Callable[[], dict[str, Any]]]


def kernel_checks(budget_s: float, export_dir: Path | None) -> Iterator[Named]:
    """Checks that need no TensorRT, in order of importance; each gets at most the time that is left."""
    deadline = time.monotonic() + budget_s

    def left(limit_s: float) -> float:
        remaining = deadline - time.monotonic()
        if remaining < 1:
            raise NotRun(f"the budget of {budget_s:g} s is used up")
        return min(limit_s, remaining)

    limits = dict(STEP_LIMITS_S)
    torch_limit = limits.pop("torch")
    for name, limit_s in limits.items():
        yield f"kernels: {name}", lambda name=name, limit_s=limit_s: run_step(name, left(limit_s))
    for tool in SANITIZER_TOOLS:
        yield f"kernels: compute-sanitizer {tool}", lambda tool=tool: sanitize_kernels(tool, left(SANITIZER_LIMIT_S))
    yield "kernels: torch", lambda: run_step("torch", left(torch_limit))
    yield "ONNX Runtime's CUDA provider", lambda: onnxruntime_cuda(export_dir, left(SANITIZER_LIMIT_S))


def tensorrt_checks(machine: dict[str, Any], out: Path, arguments: argparse.Namespace) -> Iterator[Named]:
    """Checks of engines, in order."""
    export_dir = arguments.export_dir or out / "export"
    if arguments.export_dir is None:
        yield "export", lambda: export(export_dir, arguments.res or ["192", "448"])
    for engine_id in engine_ids(machine):
        yield f"parity {engine_id}", lambda engine_id=engine_id: build(engine_id, export_dir, out)
    yield "tests marked gpu", gpu_tests
    yield "timing", lambda: timing(out, arguments.duration)
    for tool in SANITIZER_TOOLS:
        yield f"compute-sanitizer {tool}", lambda tool=tool: sanitize(tool, out)
    yield "C++ runtime", lambda: cpp_runtime(out)


def run_step(name: str, limit_s: float) -> dict[str, Any]:
    """Measurements of a step of gpu_steps.py, run in a child process.

    Raises NotRun with the step's reason if it cannot run here, RuntimeError if it fails, crashes or takes too long.
    """
    return step_result([sys.executable, str(STEPS_SCRIPT), name], limit_s)


def step_result(command: list[str], limit_s: float) -> dict[str, Any]:
    """The JSON that a step prints last; see :func:`run_step`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"it took more than {limit_s:.0f} s and was ended") from error
    if done.returncode == NOT_RUN:
        raise NotRun(done.stderr.strip()[-500:])
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {(done.stdout + done.stderr).strip()[-1500:]}")
    details: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return details


def sanitize_kernels(tool: str, limit_s: float) -> dict[str, Any]:
    """Run a few cases of every kernel under a compute-sanitizer tool; raises as :func:`run_step`."""
    child = [sys.executable, str(STEPS_SCRIPT), "sanitized"]
    done = step_result([sanitizer(), "--tool", tool, "--error-exitcode", "77", *child], limit_s)
    return {"cases": done.get("statistics", {}).get("cases")}


def sanitizer() -> str:
    """Path of compute-sanitizer. Raises NotRun without it."""
    found = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if found is None:
        raise NotRun("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    return found


def onnxruntime_cuda(export_dir: Path | None, limit_s: float) -> dict[str, Any]:
    """Build and bench `onnxruntime:fp32` with the CUDA provider on exported graphs."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise NotRun("onnxruntime is not installed")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotRun("the installed onnxruntime has no CUDA provider (onnxruntime-gpu has)")
    if export_dir is None:
        raise NotRun("give --export-dir with exported graphs")
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "mvde"]
        build_it = ["build", "--engine", "onnxruntime:fp32", "--set", "provider=cuda"]
        checked([*run, *build_it, "--export-dir", str(export_dir), "--out", folder], limit_s / 2)
        report = Path(folder) / "bench.json"
        checked([*run, "bench", "--engine-dir", folder, "--duration", "2", "--json", str(report)], limit_s / 2)
        measured: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return measured


def engine_ids(machine: dict[str, Any]) -> list[str]:
    """Engine ids of the GPU backends that work on this machine."""
    return [engine["id"] for engine in machine["engines"] if engine["works"] and engine["id"].split(":")[0] in BACKENDS]


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
    tool_path = sanitizer()
    engine = smallest_engine(out)
    run = [sys.executable, "-m", "mvde", "run", str(PHOTO), "--engine", str(engine), "--out", str(out / "sanitized")]
    command = [tool_path, "--tool", tool, "--error-exitcode", "77", *run]
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


def mvde(*arguments: str) -> str:
    """Standard output of the mvde command line, run in a child process."""
    return checked([sys.executable, "-m", "mvde", *arguments])


def checked(command: list[str], limit_s: float | None = None) -> str:
    """Standard output of a command. Raises RuntimeError with the tail of its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:6])} ...: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
