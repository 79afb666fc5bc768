"""``mvde bench``: end-to-end latency, accuracy and executed precision of engines."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from mvde.cli.floor_options import MOUNTING_HELP
from mvde.cli.groups import with_groups
from mvde.cli.on_time import DEADLINE_HELP, check_deadline_option
from mvde.cli.output import STDOUT, write_json, write_text
from mvde.cli.shared_options import FIT_HELP, IMAGES_HELP, JSON_HELP, EngineSelection, FilmedDataOptions
from mvde.cli.terminal import console, say
from mvde.errors import UsageError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mvde.artifact import EngineArtifact
    from mvde.bench.floor_cost import FloorRun
    from mvde.bench.measure import BenchOptions, Measurement
    from mvde.bench.report import Report
    from mvde.cli.assess import Assessor
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.frame_camera import CameraOf


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("bench")(with_groups(bench))


@dataclass(frozen=True)
class Timing:
    """Measurements taken of each engine; see :class:`mvde.bench.measure.BenchOptions`."""

    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None
    duration: Annotated[float, typer.Option("--duration", help="Seconds per engine (at least ten frames).")] = 5.0
    frames: Annotated[int | None, typer.Option("--frames", help="Frames per engine, instead of --duration.")] = None
    mounting: Annotated[
        Path | None,
        typer.Option(
            "--mounting", metavar="FILE", help=f"{MOUNTING_HELP} Also measures what scale from the floor costs."
        ),
    ] = None

    def floor_runs(
        self, images: Sequence[NDArray[np.uint8]], camera: CameraOf | None
    ) -> Callable[[DepthRuntime], FloorRun] | None:
        """Measurement of an engine's scale from the floor; ``None`` without a mounting."""
        if self.mounting is None:
            return None
        from mvde.bench.floor_cost import FloorRun
        from mvde.runtime.mounting import Mounting

        mounting = Mounting.from_file(self.mounting)
        return lambda runtime: FloorRun(runtime, images, self.fit, mounting, camera)


@dataclass(frozen=True)
class ArrivalOptions:
    """How frames arrive in further measurements: at a camera's rate, with a deadline, or from several threads."""

    paced: Annotated[
        float | None,
        typer.Option("--paced", metavar="FPS", help="Also measure late frames and age of results at this frame rate."),
    ] = None
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", metavar="MS", help=f"{DEADLINE_HELP} Needs --paced; a load comes and goes."),
    ] = None
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Also measure this many threads sharing one engine.")
    ] = None


@dataclass(frozen=True)
class Outputs:
    """Report files, and the baseline to compare with."""

    json: Annotated[str | None, typer.Option("--json", metavar="FILE", help=JSON_HELP)] = None
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the table as Markdown.")] = None
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a self-contained HTML page with images and charts.")
    ] = None
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Print time ratios to an earlier --json report.")
    ] = None
    max_regression: Annotated[
        float | None,
        typer.Option("--max-regression", help="Exit with 1 above this ratio of medians to --compare, e.g. 1.05."),
    ] = None

    def __post_init__(self) -> None:
        if self.max_regression is None:
            return
        if self.compare is None:
            raise UsageError("--max-regression needs a report to compare with: --compare old.json")
        if not 0 < self.max_regression < math.inf:
            raise UsageError(f"--max-regression is a ratio of times, e.g. 1.05, but got {self.max_regression}")


def bench(
    selection: EngineSelection,
    data: FilmedDataOptions,
    timing: Timing,
    arrival: ArrivalOptions,
    outputs: Outputs,
    images: Annotated[Path | None, typer.Option("--images", help=IMAGES_HELP)] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", help="Pin to these CPUs, e.g. 0,1 or 0-3.")] = None,
) -> None:
    """Benchmark engines end to end, from image to patch statistics.

    Several engines alternate (A B A B) to cancel machine noise; by default, all built engines are measured. The table
    shows the executed precision, the efficiency relative to the machine's peak, and the measurement conditions.
    Missing engines are built first if only one graph matches.
    """
    from mvde.bench.host import parse_cpus, pin

    if cpus is None:
        _bench(selection, data, timing, arrival, outputs, images, Pinning())
        return
    pinning = Pinning(parse_cpus(cpus), tuple(os.sched_getaffinity(0)))
    pin(pinning.pinned or ())  # before loading libraries, so that their threads are pinned, too
    _bench(selection, data, timing, arrival, outputs, images, pinning)


class Pinning(NamedTuple):
    """CPU affinity while measuring (``None`` for all CPUs), and the original affinity."""

    pinned: tuple[int, ...] | None = None
    before: tuple[int, ...] | None = None


def _bench(
    selection: EngineSelection,
    data: FilmedDataOptions,
    timing: Timing,
    arrival: ArrivalOptions,
    outputs: Outputs,
    images: Path | None,
    pinning: Pinning,
) -> None:
    """Measure, print and write; all validation comes before the first engine is built or loaded."""
    from mvde.bench.compare import check_regression, check_same_frames
    from mvde.bench.host import describe_machine
    from mvde.bench.measure import BenchOptions
    from mvde.bench.report import settings_of
    from mvde.cli.assess import open_assessor
    from mvde.cli.autobuild import build_missing
    from mvde.image import read_photographs
    from mvde.runtime.engine_set import check_one_model, common_grid

    check_deadline_option(arrival.deadline)
    if arrival.deadline is not None and arrival.paced is None:
        raise UsageError("--deadline is of frames at a camera's rate; give --paced FPS too")
    options = BenchOptions(
        timing.duration, timing.frames, timing.fit, arrival.paced, arrival.concurrency, arrival.deadline
    )
    old = _old_report(outputs)
    photographs = read_photographs(images)
    floor = timing.floor_runs(photographs, data.frame_camera)
    dataset = data.open()
    protocol = None if dataset is None else data.evaluation(dataset)
    with_pictures = bool(outputs.html)
    assessor = open_assessor(
        dataset,
        data.data,
        data.max_frames or 0,
        photographs,
        with_pictures=with_pictures,
        protocol=protocol,
        camera=data.frame_camera,
    )
    what = None
    if data.data and protocol:
        what = f"{data.format} {data.data.name}: {protocol.describe()}, {assessor.camera_words()}"
    settings = settings_of(options, photographs, pinning.pinned, what)
    if old is not None:
        check_same_frames(old["settings"], settings)
    machine = describe_machine()  # before building, which would raise the load average
    build_missing(selection, pinning.before)
    artifacts = _artifacts(selection)
    if options.deadline_ms is not None:
        check_one_model([one.manifest for one in artifacts])
        common_grid([one.manifest for one in artifacts])
    report = _measured(artifacts, photographs, options, assessor, settings, machine, floor)
    if old is not None:
        report = _compared(old, report)
    if outputs.json != STDOUT:
        _print(report)
    _write(report, assessor, outputs)
    if outputs.max_regression is not None:
        check_regression(report.comparisons, outputs.max_regression)


def _measured(
    artifacts: Sequence[EngineArtifact],
    photographs: Sequence[NDArray[np.uint8]],
    options: BenchOptions,
    assessor: Assessor,
    settings: dict[str, Any],
    machine: dict[str, Any],
    floor: Callable[[DepthRuntime], FloorRun] | None,
) -> Report:
    from mvde.bench.conditions import ConditionWatch
    from mvde.bench.measure import measure_engines
    from mvde.bench.on_time import measure_on_time
    from mvde.bench.peaks import copy_bytes_per_s
    from mvde.bench.report import Report
    from mvde.engines.machine import peak_memory_bytes

    with console(stderr=True).status("measuring") as status, ConditionWatch() as watch:
        num_done = 0

        def count() -> None:
            nonlocal num_done
            num_done += 1
            status.update(f"measuring, {num_done} frames")

        measurements: list[Measurement] = measure_engines(
            artifacts, photographs, options, assess=assessor.assess, floor=floor, on_frame=count
        )
        on_time = []
        if options.deadline_ms is not None and options.paced_fps is not None:
            on_time = measure_on_time(
                artifacts,
                measurements,
                photographs,
                fps=options.paced_fps,
                deadline_ms=options.deadline_ms,
                duration_s=options.duration_s if options.num_frames is None else options.num_frames / options.paced_fps,
                fit=options.fit,
                on_frame=count,
            )
            on_time = assessor.assess_on_time(on_time, artifacts, options.paced_fps)
    peak_bytes = peak_memory_bytes()
    return Report(measurements, machine, settings, watch.conditions(), copy_bytes_per_s(), peak_bytes, on_time=on_time)


def _old_report(outputs: Outputs) -> dict[str, Any] | None:
    """Read the baseline report, rejecting an unusable one before minutes of measuring."""
    from mvde.bench.compare import machine_differences, read_report
    from mvde.bench.host import describe_machine
    from mvde.errors import ReportError

    if outputs.compare is None:
        return None
    report = read_report(outputs.compare)
    differences = machine_differences(report["machine"], describe_machine())
    if differences and outputs.max_regression is not None:
        raise ReportError(
            f"{outputs.compare} was measured on another machine ({'; '.join(differences)}), so --max-regression "
            "would compare the machines; leave it out to see the ratios"
        )
    return report


def _compared(before: dict[str, Any], report: Report) -> Report:
    from mvde.bench.compare import compare, machine_differences

    plain = report.to_dict()
    differences = machine_differences(before["machine"], report.machine)
    notes = [f"the old report is from another machine: {'; '.join(differences)}"] if differences else []
    return dataclasses.replace(report, comparisons=compare(before, plain), notes=notes)


def _print(report: Report) -> None:
    from rich.table import Table

    from mvde.bench.report import machine_line, on_time_line, on_time_title, table

    shown = console()
    shown.print(table(report.measurements))
    if report.on_time:
        say(on_time_title(report.on_time))
        for run in report.on_time:
            say(on_time_line(run))
    say(machine_line(report))
    if report.comparisons:
        ratios = Table("new / old (95 % interval)", "median", "mean", "p99")
        for one in report.comparisons:
            ratios.add_row(one.engine, str(one.p50), str(one.mean), str(one.p99))
        shown.print(ratios)
    for warning in report.warnings:
        console(stderr=True).print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


def _write(report: Report, assessor: Assessor, outputs: Outputs) -> None:
    from mvde.bench.report import markdown

    if outputs.json is not None:
        write_json(outputs.json, report.to_json())
    if outputs.markdown is not None:
        write_text(outputs.markdown, markdown(report))
    if outputs.html is not None:
        from mvde.bench.page import page

        write_text(outputs.html, page(report, assessor.pictures))


def _artifacts(selection: EngineSelection) -> list[EngineArtifact]:
    """Engines selected by the options; all engines by default."""
    from mvde.artifact import find_engines
    from mvde.engines.store import find

    name, batch, folder = selection.name, selection.batch, selection.engine_dir
    found: list[EngineArtifact] = []
    for resolution in selection.wanted_resolutions:
        if selection.engine:
            ids = selection.engine
            found += [find(text, name=name, resolution=resolution, batch=batch, root=folder) for text in ids]
        else:
            found += find_engines(name, resolution, folder=folder, batch=batch)
    return list({artifact.path: artifact for artifact in found}.values())
