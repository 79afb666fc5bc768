"""The acceptance command exits without a GPU, and reports failed and skipped checks."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mvde.cuda.gpu import find_gpu

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_acceptance.py"

MACHINE = {
    "gpu": {"name": "A GPU", "compute_capability": "8.9", "driver_cuda": "13.0"},
    "libraries": {"tensorrt": "10.16.1", "numpy": "2"},
    "engines": [
        {"id": "tensorrt:fp16", "works": True},
        {"id": "tensorrt:fp8", "works": False},
        {"id": "openvino:fp32", "works": True},
    ],
}


@pytest.fixture(scope="module")
def acceptance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_acceptance", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_acceptance"] = module
    sys.path.insert(0, str(SCRIPT.parent))  # as for a script: it imports its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.mark.skipif(find_gpu() is not None, reason="for machines without a GPU")
def test_without_a_gpu_nothing_is_checked_and_nothing_written(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", "there"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "needs an NVIDIA GPU, but no NVIDIA driver is installed" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_what_works_on_the_gpu_is_checked(acceptance: ModuleType) -> None:
    assert acceptance.engine_ids(MACHINE) == ["tensorrt:fp16"]


def test_the_report_tells_failures_from_what_could_not_run(acceptance: ModuleType, tmp_path: Path) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("the depth | is wrong")

    def leave_out() -> dict[str, Any]:
        raise acceptance.NotRun("no tool")

    facts = {"engine": {"executed_precision": "fp16", "mean_rel": 1e-4, "max_rel": 1e-2}}
    checks = [acceptance.run_check(name, work) for name, work in (("a", lambda: facts), ("b", fail), ("c", leave_out))]
    assert [check.state for check in checks] == ["passed", "failed", "not run"]
    report = acceptance.Report(tmp_path, MACHINE)
    for check in checks:
        report.add(check)
    stored = json.loads((tmp_path / "report.json").read_text())
    assert [check["note"] for check in stored["checks"]] == ["", "the depth | is wrong", "no tool"]
    table = (tmp_path / "report.md").read_text()
    assert "A GPU, compute capability 8.9, driver for CUDA 13.0; tensorrt 10.16.1" in table
    assert "| b | failed |" in table
    assert "the depth / is wrong" in table
    assert "mean 1.0e-04" in table
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert lines[0]["machine"] == MACHINE
    assert [line["state"] for line in lines[1:]] == ["passed", "failed", "not run"]


def test_rows_become_a_table_of_their_own(acceptance: ModuleType, tmp_path: Path) -> None:
    rows = [{"size": 448, "copy_gb_s": 2000.5}, {"size": 896, "copy_gb_s": 2500.0}]
    acceptance.Report(tmp_path, MACHINE).add(acceptance.run_check("bandwidth", lambda: {"rows": rows}))
    text = (tmp_path / "report.md").read_text()
    assert "## bandwidth" in text
    assert "| 896 | 2500.0 |" in text


def test_each_result_is_in_the_files_before_the_next_check_starts(acceptance: ModuleType, tmp_path: Path) -> None:
    report = acceptance.Report(tmp_path, MACHINE)

    def look() -> dict[str, Any]:
        return {"lines": len((tmp_path / "results.jsonl").read_text().splitlines())}

    found = [acceptance.run_check(name, look) for name in "ab" if not report.add(acceptance.run_check(name, look))]
    assert [check.details["lines"] for check in found] == [2, 3]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('the kernel is wrong')", "exit status 1.*the kernel is wrong"),
        ("import os; os.abort()", "exit status -6"),
        ("import time; time.sleep(30)", "took more than 1 s"),
    ],
)
def test_a_step_that_fails_crashes_or_hangs_is_reported(acceptance: ModuleType, code: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=re.compile(message, re.DOTALL)):
        acceptance.step_result([sys.executable, "-c", code], 1.0 if "sleep" in code else 30.0)


def test_a_step_that_cannot_run_says_why(acceptance: ModuleType) -> None:
    code = "import sys; print('no torch', file=sys.stderr); sys.exit(3)"
    with pytest.raises(acceptance.NotRun, match="no torch"):
        acceptance.step_result([sys.executable, "-c", code], 30.0)
    assert acceptance.step_result([sys.executable, "-c", "print('noise'); print('{\"a\": 1}')"], 30.0) == {"a": 1}


def test_the_rest_goes_on_after_a_failure_and_stops_with_the_budget(
    acceptance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 20))  # every look at the clock takes 20 s
    monkeypatch.setattr(acceptance.time, "monotonic", lambda: float(next(clock)))

    def step(name: str, limit_s: float) -> dict[str, Any]:
        if name == "statistics":
            raise RuntimeError("wrong")
        return {"limit_s": limit_s}

    monkeypatch.setattr(acceptance, "run_step", step)
    monkeypatch.setattr(acceptance, "sanitize_kernels", step)
    checks = [acceptance.run_check(name, work) for name, work in acceptance.kernel_checks(130.0, None)]
    states = {check.name.removeprefix("kernels: "): check.state for check in checks}
    assert [states[name] for name in ("compile", "statistics", "pictures")] == ["passed", "failed", "passed"]
    assert states["session"] == states["torch"] == "not run"
    assert "budget of 130 s" in checks[-1].note
    assert next(c for c in checks if c.name == "kernels: arrays").details == {"limit_s": 10.0}
    tools = [name for name in states if name.startswith("compute-sanitizer")]
    assert [name.split()[1] for name in tools] == ["memcheck", "initcheck", "synccheck", "racecheck"]


def test_without_tensorrt_no_engine_is_looked_at(
    acceptance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "require_gpu", lambda bare: {**MACHINE, "bare": bare})
    monkeypatch.setattr(acceptance, "run_step", lambda name, limit_s: {})
    monkeypatch.setattr(acceptance, "sanitize_kernels", lambda tool, limit_s: {})
    monkeypatch.setattr(acceptance, "onnxruntime_cuda", lambda folder, limit_s: {})
    monkeypatch.setattr(acceptance, "mvde", lambda *arguments: pytest.fail("a verb was run"))
    monkeypatch.setattr(sys, "argv", ["gpu_acceptance.py", "--without-tensorrt", "--out", str(tmp_path)])
    assert acceptance.main() == 0
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["machine"]["bare"] is True
    assert len(stored["checks"]) == 13


def test_without_engines_there_is_nothing_to_sanitize(acceptance: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(acceptance.NotRun, match="no TensorRT engine"):
        acceptance.smallest_engine(tmp_path)
