"""Benchmark reports as a terminal table, Markdown and JSON, stating what was actually executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mvde.bench.compare import SCHEMA_VERSION, Comparison
from mvde.bench.conditions import Conditions
from mvde.bench.measure import Assessment, BenchOptions, Measurement
from mvde.bench.on_time import OnTimeRun
from mvde.bench.peaks import ProductSpeed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

NONE = "–"  # not measurable or not requested


@dataclass(frozen=True)
class Report:
    """One benchmark run. ``settings`` are JSON types (see :func:`settings_of`), ``notes`` additional warnings."""

    measurements: Sequence[Measurement]
    machine: dict[str, Any]
    settings: dict[str, Any]
    conditions: Conditions
    copy_bytes_per_s: float
    peak_memory_bytes: int
    created: str = dataclasses.field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    comparisons: Sequence[Comparison] = ()
    notes: Sequence[str] = ()
    on_time: Sequence[OnTimeRun] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what makes the numbers unreliable: conditions, unfinished warm-up, drift."""
        slowed = [
            f"{label(one)} slowed down by {one.drift - 1:.0%} during the run"
            for one in self.measurements
            if one.drift > 1.05
        ]
        unsettled = [
            f"{label(one)} was still speeding up when its warm-up ended after {len(one.warm_up.times_ms)} frames"
            for one in self.measurements
            if not one.warm_up.is_steady
        ]
        return (*self.notes, *self.conditions.warnings, *slowed, *unsettled)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types: schema version, time, machine, settings, conditions, a record per engine."""
        return {
            "schema_version": SCHEMA_VERSION,
            "created": self.created,
            "machine": self.machine,
            "settings": self.settings,
            "conditions": dataclasses.asdict(self.conditions),
            "warnings": list(self.warnings),
            "copy_bytes_per_s": self.copy_bytes_per_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "engines": [_engine(measurement) for measurement in self.measurements],
            "comparisons": [dataclasses.asdict(one) for one in self.comparisons],
            "on_time": [_on_time(one) for one in self.on_time],
        }

    def to_json(self) -> str:
        """Return indented JSON text with each list of numbers on one line, to keep thousands of samples readable."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        return re.sub(r"\[\s+([-+\d.eE,\s]+?)\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def settings_of(
    options: BenchOptions, images: Sequence[NDArray[np.uint8]], cpus: Sequence[int] | None, data: str | None
) -> dict[str, Any]:
    """Settings of a run as JSON types; ``frames`` identifies the images by checksum."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(str(image.shape).encode())
        digest.update(image.tobytes())
    return {
        **dataclasses.asdict(options),
        "frames": f"{len(images)} images, SHA-256 {digest.hexdigest()[:16]}",
        "frame_sizes": sorted({f"{image.shape[0]}x{image.shape[1]}" for image in images}),
        "cpus": list(cpus) if cpus is not None else None,
        "data": data,
    }


def label(one: Measurement) -> str:
    """Model, resolution and engine id: ``"nano 192x192 openvino:fp32"``."""
    height, width = one.resolution
    batch = f" b{one.batch}" if one.batch != 1 else ""
    return f"{one.name} {height}x{width}{batch} {one.id}"


def rows(measurements: Sequence[Measurement]) -> dict[str, list[str]]:
    """Table rows, label → one cell per engine; rows without any value are omitted."""
    cells = {name: [cell(one) for one in measurements] for name, cell in _ROWS.items()}
    return {name: row for name, row in cells.items() if any(cell != NONE for cell in row)}


def table(measurements: Sequence[Measurement]) -> Table:
    """Terminal table with one column per engine."""
    from rich.table import Table

    built = Table("whole frame", show_lines=False)
    for measurement in measurements:
        title, engine_id = label(measurement).rsplit(" ", 1)
        built.add_column(f"{title}\n{engine_id}", justify="right")
    for name, row in rows(measurements).items():
        built.add_row(name, *row)
    return built


def on_time_line(one: OnTimeRun) -> str:
    """A run with a deadline as a line: a table of these columns is wider than a terminal."""
    cells = zip(ON_TIME_COLUMNS, on_time_cells(one), strict=True)
    return f"{one.name}: {'; '.join(f'{name} {cell}' for name, cell in cells if cell != NONE)}"


def markdown(report: Report) -> str:
    """Markdown with the table, the machine, the warnings and the comparison."""
    lines = [f"| whole frame | {' | '.join(map(label, report.measurements))} |"]
    lines.append("|---" * (len(report.measurements) + 1) + "|")
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in rows(report.measurements).items()]
    lines += ["", f"{machine_line(report)}; {report.created}."]
    lines += ["", *(f"- Warning: {warning}." for warning in report.warnings)] if report.warnings else []
    if report.on_time:
        lines += ["", f"| {on_time_title(report.on_time)} | {' | '.join(ON_TIME_COLUMNS)} |"]
        lines.append("|---" * (len(ON_TIME_COLUMNS) + 1) + "|")
        lines += [f"| {one.name} | {' | '.join(on_time_cells(one))} |" for one in report.on_time]
    if report.comparisons:
        lines += ["", "| new / old, 95 % interval | median | mean | p99 |", "|---|---|---|---|"]
        lines += [f"| {one.engine} | {one.p50} | {one.mean} | {one.p99} |" for one in report.comparisons]
    return "\n".join(lines) + "\n"


ON_TIME_COLUMNS = (
    "late",
    "of these, under load",
    "dropped",
    "age p50",
    "p99",
    "resolutions",
    "switches",
    "memory",
    "AbsRel",
    "AbsRel as delivered",
)


def on_time_title(runs: Sequence[OnTimeRun]) -> str:
    """What the runs with a deadline have in common."""
    return f"deadline {runs[0].deadline_ms:g} ms, load comes and goes"


def on_time_cells(one: OnTimeRun) -> list[str]:
    """Cells of a run for :data:`ON_TIME_COLUMNS`."""
    return [
        f"{one.num_late} of {len(one.frames)} ({one.num_late / len(one.frames):.1%})",
        str(one.num_late_loaded),
        str(one.num_dropped),
        milliseconds(one.age.p50_ms),
        milliseconds(one.age.p99_ms),
        ", ".join(f"{share:.0%} {size}" for size, share in one.shares.items()),
        str(one.num_switches),
        f"{one.memory_bytes / 2**20:.0f} MiB",
        *(_if((one.accuracy or {}).get(name), "{:.4f}".format) for name in ("abs_rel", "delivered_abs_rel")),
    ]


def machine_line(report: Report) -> str:
    """One-line description: CPU, CPUs used, GPUs, copy bandwidth, the process's peak memory."""
    machine = report.machine
    parts = [f"{machine['cpu']}, CPUs {machine['cpus']}", *machine["gpus"]]
    parts.append(f"copies {report.copy_bytes_per_s / 1e9:.1f} GB/s")
    parts.append(f"peak memory of the process {report.peak_memory_bytes / 2**20:.0f} MiB")
    return "; ".join(parts)


def _engine(measurement: Measurement) -> dict[str, Any]:
    """Measurement as JSON types, without the depth pictures."""
    accuracy = measurement.assessment.accuracy
    plain = dataclasses.asdict(dataclasses.replace(measurement, assessment=Assessment()))
    del plain["assessment"]
    plain["accuracy"] = dict(accuracy) if accuracy is not None else None
    plain["warm_up"]["times_ms"] = [round(ms, 3) for ms in measurement.warm_up.times_ms]
    return plain


def _on_time(run: OnTimeRun) -> dict[str, Any]:
    """A run with a deadline as JSON types, with a list per column of its frames."""
    plain = {**dataclasses.asdict(dataclasses.replace(run, frames=())), "num_frames": len(run.frames)}
    del plain["frames"]
    return {
        **plain,
        "captured_s": [round(one.captured_s, 4) for one in run.frames],
        "heights": [one.resolution[0] for one in run.frames],
        "age_ms": [round(one.age_ms, 3) for one in run.frames],
        "is_loaded": [int(one.is_loaded) for one in run.frames],
    }


def milliseconds(value: float) -> str:
    """Format a time with a sensible number of digits: ``"0.412 ms"``, ``"12.3 ms"``, ``"456 ms"``."""
    if value < 1:
        return f"{value:.3f} ms"
    return f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


def _attention(one: Measurement) -> str:
    """Attention implementation, if the engine reports it."""
    return re.split("[,;]", one.rewrites.get("attention", NONE))[0]  # without count and reason


def _warm_up(one: Measurement) -> str:
    found = one.warm_up
    if not found.is_steady:
        return f"not steady after {len(found.times_ms)} frames"
    return f"{found.num_frames} frame{'s' if found.num_frames != 1 else ''}"


def _share_of(products: Callable[[ProductSpeed], float]) -> Callable[[Measurement], str]:
    def cell(one: Measurement) -> str:
        found = one.efficiency
        if found is None or found.products is None:
            return NONE
        speed = products(found.products)
        return f"{found.flops_per_s / speed:.0%} of {speed / 1e9:.0f} GFLOP/s"

    return cell


def _kernel(one: Measurement) -> str:
    speed = one.stats_kernel
    return f"{speed.kernel_gb_per_s:.1f} GB/s, copy {speed.copy_gb_per_s:.1f}"


def _accuracy(name: str, text: str = "{:.4f}") -> Callable[[Measurement], str]:
    def cell(one: Measurement) -> str:
        accuracy = one.assessment.accuracy
        return text.format(accuracy[name]) if accuracy is not None and name in accuracy else NONE

    return cell


def _if(value: Any, text: Callable[[Any], str]) -> str:
    return text(value) if value is not None else NONE


_ROWS: dict[str, Callable[[Measurement], str]] = {
    "computes in": lambda m: m.executed_precision,
    "attention": _attention,
    "device": lambda m: m.device,
    "library": lambda m: f"{m.id.split(':')[0]} {m.library_version}",
    "frames": lambda m: str(m.num_frames),
    "mean": lambda m: milliseconds(m.total.mean_ms),
    "p50": lambda m: milliseconds(m.total.p50_ms),
    "p90": lambda m: milliseconds(m.total.p90_ms),
    "p99": lambda m: milliseconds(m.total.p99_ms),
    "p99.9": lambda m: milliseconds(m.total.p99_9_ms),
    "max": lambda m: milliseconds(m.total.max_ms),
    "jitter": lambda m: milliseconds(m.total.jitter_ms),
    "pre (mean)": lambda m: milliseconds(m.pre.mean_ms),
    "infer (mean)": lambda m: milliseconds(m.infer.mean_ms),
    "post (mean)": lambda m: milliseconds(m.post.mean_ms),
    "on the device (p50)": lambda m: _if(m.on_device, lambda found: milliseconds(found.p50_ms)),
    "throughput (stream)": lambda m: f"{m.throughput_fps:.2f} frames/s",
    "load": lambda m: milliseconds(m.load_ms),
    "first frame": lambda m: milliseconds(m.first_frame_ms),
    "warm after": _warm_up,
    "memory": lambda m: f"{m.memory_bytes / 2**20:.0f} MiB",
    "device memory": lambda m: _if(m.device_memory_bytes, lambda found: f"{found / 2**20:.0f} MiB"),
    "arithmetic": lambda m: _if(m.efficiency, lambda found: f"{found.num_flops / 1e9:.2f} GFLOP"),
    "achieved": lambda m: _if(m.efficiency, lambda found: f"{found.flops_per_s / 1e9:.0f} GFLOP/s"),
    "of a large product": _share_of(lambda products: products.large_flops_per_s),
    "of the best product": _share_of(lambda products: products.best_flops_per_s),
    "statistics kernel": _kernel,
    "energy per frame": lambda m: f"{sum(m.energy_j.values()):.2f} J" if m.energy_j else NONE,
    "camera rate": lambda m: _if(m.paced, lambda found: f"{found.fps:g} frames/s"),
    "age of result (p50)": lambda m: _if(m.paced, lambda found: milliseconds(found.age.p50_ms)),
    "age of result (p99)": lambda m: _if(m.paced, lambda found: milliseconds(found.age.p99_ms)),
    "late, dropped": lambda m: _if(
        m.paced, lambda x: f"{x.num_late}, {x.num_dropped} of {x.num_frames + x.num_dropped}"
    ),
    "threads": lambda m: _if(m.concurrent, lambda found: str(found.num_threads)),
    "throughput (threads)": lambda m: _if(m.concurrent, lambda found: f"{found.throughput_fps:.2f} frames/s"),
    "p50 (threads)": lambda m: _if(m.concurrent, lambda found: milliseconds(found.total.p50_ms)),
    "scale from the floor (p50)": lambda m: _if(m.floor, lambda found: milliseconds(found.added.p50_ms)),
    "floor found": lambda m: _if(m.floor, lambda found: f"{found.num_used} of {found.num_frames}"),
    "AbsRel": _accuracy("abs_rel"),
    "RMSE": _accuracy("rmse", "{:.3f} m"),
    "δ1": _accuracy("delta1"),
    "images": _accuracy("num_images", "{:.0f}"),
    "scale flicker": _accuracy("scale_flicker"),
    "scale flicker, stabilised": _accuracy("steady_scale_flicker"),
    "point flicker": _accuracy("point_flicker"),
    "point flicker, stabilised": _accuracy("steady_point_flicker"),
    "clips": _accuracy("num_clips", "{:.0f}"),
}
