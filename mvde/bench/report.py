"""Reports: a table for people and JSON for machines, both saying what really ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mvde.bench.measure import Measurement

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1

_ROWS: dict[str, Callable[[Measurement], str]] = {
    "computes in": lambda m: m.executed_precision,
    "device": lambda m: m.device,
    "frames": lambda m: str(m.num_frames),
    "mean": lambda m: _ms(m.total.mean_ms),
    "p50": lambda m: _ms(m.total.p50_ms),
    "p90": lambda m: _ms(m.total.p90_ms),
    "p99": lambda m: _ms(m.total.p99_ms),
    "p99.9": lambda m: _ms(m.total.p99_9_ms),
    "max": lambda m: _ms(m.total.max_ms),
    "pre (mean)": lambda m: _ms(m.pre.mean_ms),
    "infer (mean)": lambda m: _ms(m.infer.mean_ms),
    "post (mean)": lambda m: _ms(m.post.mean_ms),
    "throughput (stream)": lambda m: f"{m.throughput_fps:.2f} frames/s",
    "load": lambda m: _ms(m.load_ms),
    "first frame": lambda m: _ms(m.first_frame_ms),
    "memory": lambda m: f"{m.memory_bytes / 2**20:.0f} MiB",
}


def table(measurements: Sequence[Measurement]) -> Table:
    """Table with a column per engine, for a terminal."""
    from rich.table import Table

    built = Table("whole frame", show_lines=False)
    for measurement in measurements:
        height, width = measurement.resolution
        batch = f" b{measurement.batch}" if measurement.batch != 1 else ""
        built.add_column(f"{measurement.name} {height}x{width}{batch}\n{measurement.id}", justify="right")
    for label, cell in _ROWS.items():
        built.add_row(label, *(cell(measurement) for measurement in measurements))
    return built


def to_dict(measurements: Sequence[Measurement], machine: dict[str, Any], peak_memory_bytes: int) -> dict[str, Any]:
    """The report as JSON types: schema version, time, machine, process peak, and one record per engine."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "peak_memory_bytes": peak_memory_bytes,
        "engines": [dataclasses.asdict(measurement) for measurement in measurements],
    }


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
