"""The acceptance command exits without a GPU, and reports failed and skipped checks."""

from __future__ import annotations

import importlib.util
import json
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
    spec.loader.exec_module(module)
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
    acceptance.write_report(tmp_path, MACHINE, checks)
    stored = json.loads((tmp_path / "report.json").read_text())
    assert [check["note"] for check in stored["checks"]] == ["", "the depth | is wrong", "no tool"]
    table = (tmp_path / "report.md").read_text()
    assert "A GPU, compute capability 8.9, driver for CUDA 13.0; tensorrt 10.16.1" in table
    assert "| b | failed |" in table
    assert "the depth / is wrong" in table
    assert "mean 1.0e-04" in table


def test_without_engines_there_is_nothing_to_sanitize(acceptance: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(acceptance.NotRun, match="no TensorRT engine"):
        acceptance.smallest_engine(tmp_path)
