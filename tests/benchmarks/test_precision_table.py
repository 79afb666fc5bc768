"""The precision table: one row per precision from the build's manifest, or the build error."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.artifact import Artifact

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "precision_table.py"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
def test_every_precision_has_a_row(tmp_path: Path, write_graph: Callable[..., Artifact]) -> None:
    write_graph(tmp_path / "export")
    command = [sys.executable, str(SCRIPT), "--precision", "fp32", "--precision", "fp8", "--compute-capability", "7.5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    head, rule, fp32, fp8 = done.stdout.splitlines()
    assert len({line.count("|") for line in (head, rule, fp32, fp8)}) == 1
    assert fp32.startswith("| fp32 |")
    assert "| 100% | 0 of 0 |" in fp32
    assert "fp8 needs a GPU of compute capability 8.9" in fp8


def test_the_worst_run_of_the_gate_stands_for_all() -> None:
    spec = importlib.util.spec_from_file_location("precision_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runs = [
        {"abs_rel_change": -2e-3, "mean_rel": 1e-3, "p99_rel": 1e-2, "max_rel": 0.1},
        {"abs_rel_change": 1e-3, "mean_rel": 3e-3, "p99_rel": 2e-3, "max_rel": 0.2},
    ]
    network = {"num_by_dtype": {"int8": 3, "fp16": 1}, "num_attention": 0, "num_softmax": 2}
    row = {"precision": "int8", "gate": {"runs": runs}, "network": network, "plan_bytes": 4_200_000, "build_s": 3.14}
    cells = ["int8", "2.0e-03", "3.0e-03", "1.0e-02", "2.0e-01", "75%", "0 of 2", "4.2 MB", "3.1 s"]
    assert module.cells(row) == cells
    assert len(cells) == len(module.HEAD)
