"""Building of one engine, with progress and report, for ``mvde build`` and verbs that build missing engines."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.cli.terminal import console, say
from mvde.export.range_method import RangeMethod
from mvde.records import NOT_MEASURED

if TYPE_CHECKING:
    from mvde.artifact import GraphArtifact
    from mvde.engines.base import BuildOptions, EngineId, Graph
    from mvde.engines.build import BuildReport
    from mvde.precision import Precision
    from mvde.records import TuningRecord


@dataclass(frozen=True)
class BuildRequest:
    """An engine to build: source graph, engine id with backend, output folder, and options.

    ``images`` is the folder of photographs for parity, ``quantization_images`` that for calibration of a lowered
    graph; ``None`` means the bundled ones.
    """

    source: GraphArtifact
    engine_id: EngineId
    out: Path
    options: BuildOptions
    images: Path | None = None
    quantization_images: Path | None = None
    method: RangeMethod = RangeMethod.AUTO


def build_and_report(request: BuildRequest) -> None:
    """Build the engine and print a report."""
    report = build_one(request)
    record = report.manifest.engine
    warn(report)
    say(f"{report.folder}: {record.id}, computes in {record.executed_precision} on {record.device}")
    if report.parity is None:
        say(f"  compiled in {report.compile_s:.2f} s; parity {NOT_MEASURED}")
        say(f"  measure it on the target machine before use: mvde prove {report.folder}")
        return
    if "attention" in record.rewrites:
        say(f"  attention: {record.rewrites['attention']}")
    if record.tuning is not None:
        _print_tuning(record.tuning)
    say(f"  compiled in {report.compile_s:.2f} s, loads in {report.load_s:.2f} s; against fp32 {report.parity}")


def build_one(request: BuildRequest) -> BuildReport:
    """Build the engine with a progress bar on stderr."""
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mvde.engines.build import build_engine
    from mvde.image import read_photographs
    from mvde.resampling import Resampling
    from mvde.runtime.placement import Fit, fitted

    manifest = request.source.manifest
    resampling = Resampling.of(manifest.preprocess)
    images = fitted(read_photographs(request.images), manifest.resolution, Fit.CROP, resampling)
    what = f"building {request.engine_id} from {request.source.path}"
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    shown = console(stderr=True)
    # A transient bar leaves an empty line if stderr is not a terminal.
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as progress:
        task = progress.add_task(escape(what), total=None)

        def show(phase: str, num_done: int, num_steps: int) -> None:
            progress.update(task, description=escape(f"{what}: {phase}"), completed=num_done, total=num_steps)

        def tell(message: str) -> None:
            progress.update(task, description=escape(f"{what}: {message}"))

        return build_engine(
            request.source,
            request.engine_id,
            images,
            root=request.out,
            options=dataclasses.replace(request.options, on_progress=show),
            lower_graph=partial(_lowered, request, tell),
        )


def _lowered(
    request: BuildRequest, tell: Callable[[str], None], graph: Graph, precision: Precision, folder: Path
) -> Graph:
    """Lower-precision graph: the existing typed graph beside it, or a new one written to ``folder``."""
    from mvde.engines.build import graph_rest, graph_weight_bits
    from mvde.export.precision import lowerer
    from mvde.export.precision.images import lower_options

    rest = graph_rest(request.engine_id, request.options.rest)
    bits = graph_weight_bits(request.engine_id)
    options = lower_options(
        request.source.manifest, request.quantization_images, request.method, rest, weight_bits=bits
    )
    return lowerer(request.source, dataclasses.replace(options, progress=tell))(graph, precision, folder)


def warn(report: BuildReport) -> None:
    """Print the warnings of a build, one line each on stderr."""
    for warning in report.warnings:
        say(f"mvde: warning: {warning}", file=sys.stderr)


def _print_tuning(tuning: TuningRecord) -> None:
    """Print all tuning candidates, fastest first."""
    for candidate in sorted(tuning.candidates, key=lambda one: one.median_ms or float("inf")):
        settings = ", ".join(f"{key}={value}" for key, value in candidate.settings.items()) or "the library's choice"
        chosen = " (chosen)" if candidate.settings == tuning.chosen else ""
        measured = "refused" if candidate.median_ms is None else f"{candidate.median_ms:.2f} ms, {candidate.gain:.3f}x"
        say(f"  {settings}: {measured}{chosen}")
