"""Checks of gpu_acceptance.py and their report, written as the results come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


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


class Report:
    """Results so far: appended to `results.jsonl` one by one, and in whole in `report.json` and `report.md`."""

    def __init__(self, out: Path, machine: dict[str, Any]) -> None:
        self.checks: list[Check] = []
        self._out, self._machine = out, machine
        (out / "results.jsonl").write_text(json.dumps({"machine": machine}) + "\n", encoding="utf-8")

    def add(self, check: Check) -> None:
        """Write a result; what a session ends before is in the files already."""
        self.checks.append(check)
        with (self._out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(check)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        write_report(self._out, self._machine, self.checks)


def write_report(out: Path, machine: dict[str, Any], checks: list[Check]) -> None:
    """Write `report.json` (full) and `report.md` (summary, and a table of each check that has rows)."""
    report = {"machine": machine, "checks": [asdict(check) for check in checks]}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    gpu, libraries = machine["gpu"], machine["libraries"]
    shown = ("tensorrt", "cuda", "torch", "cupy")
    versions = ", ".join(
        f"{name} {version}" for name, version in libraries.items() if any(part in name for part in shown)
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
        *(line for check in checks for line in _table(check)),
    ]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(check: Check) -> list[str]:
    """Lines of a table of a check's rows, with a heading; none without rows."""
    rows = check.details.get("rows")
    if not rows:
        return []
    head = list(rows[0])
    body = [f"| {' | '.join(str(row.get(name, '')) for name in head)} |" for row in rows]
    return ["", f"## {check.name}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body]


def _cell(check: Check) -> str:
    """Note of a check, its parity per engine, or its numbers, escaped for a Markdown cell."""
    parities = [
        f"{name}: {facts['executed_precision']}, relative error mean {facts['mean_rel']:.1e}, "
        f"max {facts['max_rel']:.1e}"
        for name, facts in check.details.items()
        if isinstance(facts, dict) and "mean_rel" in facts
    ]
    numbers = [f"{name} {value:g}" for name, value in check.details.items() if type(value) in (int, float)]
    return (check.note or "; ".join(parities or numbers)).replace("|", "/")[:400]
