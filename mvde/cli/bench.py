"""``mvde bench``: how long whole frames take, how good they are, and what really ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mvde.artifact import EngineArtifact
    from mvde.bench.measure import Measurement, Plan
    from mvde.bench.report import Report
    from mvde.cli.assess import Assessor


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("bench")(bench)


def bench(
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", "-e", help="Engine id or folder; repeatable. Default: every engine that is built."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Model name, where several were built.")] = None,
    res: Annotated[
        list[str] | None, typer.Option("--res", help="Resolution, H or HxW, where several were built; repeatable.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per call, where several were built.")
    ] = None,
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help="Folder that holds engines.")] = Path("engines"),
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of photographs. Default: those that ship.")
    ] = None,
    fit: Annotated[str, typer.Option("--fit", help="stretch, letterbox or crop.")] = "stretch",
    duration: Annotated[float, typer.Option("--duration", help="Seconds per engine (at least ten frames).")] = 5.0,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames per engine, instead of --duration.")] = None,
    paced: Annotated[
        float | None,
        typer.Option("--paced", metavar="FPS", help="Also measure at a camera's clock: late frames, age of results."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Also measure this many threads that share an engine.")
    ] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", help="Run on these CPUs only, such as 0,1 or 0-3.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data set with ground truth: measure the engines' accuracy, too.")
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="folder, synthetic, nyu, kitti, tum, diode or hypersim.")
    ] = "folder",
    depth_scale: Annotated[
        float, typer.Option("--depth-scale", help="Stored value of one metre, for --format folder.")
    ] = 1000.0,
    max_frames: Annotated[
        int, typer.Option("--max-frames", help="Evenly spread frames of --data to take; 0 for all.", min=0)
    ] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the report, with every frame's time.")] = None,
    markdown_path: Annotated[Path | None, typer.Option("--markdown", help="Write the table as Markdown.")] = None,
    html_path: Annotated[
        Path | None, typer.Option("--html", help="Write one self-contained page with pictures and charts.")
    ] = None,
    old: Annotated[
        Path | None, typer.Option("--compare", help="An earlier --json report: print the ratios of times to it.")
    ] = None,
    max_regression: Annotated[
        float | None,
        typer.Option("--max-regression", help="With --compare: exit with 1 past this ratio of medians, such as 1.05."),
    ] = None,
) -> None:
    """Measure whole frames, from camera to statistics.

    Several engines take turns (A B A B), so that a noisy machine does not decide between them. The table says what
    really ran, how much of the machine's best it reached, and under which conditions.
    """
    from mvde.bench.machine import parse_cpus, pin

    pinned = parse_cpus(cpus) if cpus is not None else None
    if pinned is not None:
        pin(pinned)  # before the libraries are loaded, so that their threads are pinned, too
    from mvde.bench.compare import check_regression
    from mvde.bench.measure import Plan
    from mvde.bench.report import settings_of
    from mvde.cli.assess import open_assessor
    from mvde.image import read_photographs
    from mvde.runtime.placement import check_fit

    plan = Plan(duration, frames, check_fit(fit), paced, concurrency)
    plan.check()
    before = _old_report(old, max_regression)
    artifacts = _artifacts(engine, name, res, batch, engine_dir)
    photographs = read_photographs(images)
    assessor = open_assessor(
        data, data_format, depth_scale, max_frames, photographs, with_pictures=html_path is not None
    )
    settings = settings_of(plan, photographs, pinned, f"{data_format} {data.name}" if data is not None else None)
    if before is not None:
        from mvde.bench.compare import check_same_frames

        check_same_frames(before["settings"], settings)
    report = _measured(artifacts, photographs, plan, assessor, settings)
    if before is not None:
        report = _compared(before, report)
    _print(report)
    _write(report, assessor, json_path, markdown_path, html_path)
    if max_regression is not None:
        check_regression(report.comparisons, max_regression)


def _measured(
    artifacts: Sequence[EngineArtifact],
    photographs: Sequence[NDArray[np.uint8]],
    plan: Plan,
    assessor: Assessor,
    settings: dict[str, Any],
) -> Report:
    from rich.console import Console

    from mvde.bench.conditions import ConditionWatch
    from mvde.bench.machine import describe_machine, peak_memory_bytes
    from mvde.bench.measure import measure_engines
    from mvde.bench.peaks import copy_bytes_per_s
    from mvde.bench.report import Report

    machine = describe_machine()  # first: the load average is that of before
    with Console(stderr=True).status("measuring") as status, ConditionWatch() as watch:
        num_done = 0

        def count() -> None:
            nonlocal num_done
            num_done += 1
            status.update(f"measuring, {num_done} frames")

        measurements: list[Measurement] = measure_engines(
            artifacts, photographs, plan, assess=assessor.assess, on_frame=count
        )
    peak_bytes = peak_memory_bytes()
    return Report(measurements, machine, settings, watch.conditions(), copy_bytes_per_s(), peak_bytes)


def _old_report(path: Path | None, max_regression: float | None) -> dict[str, Any] | None:
    """The report to compare with, read before minutes of measuring and refused if it is of no use."""
    import math

    from mvde.bench.compare import machine_differences, read_report
    from mvde.bench.machine import describe_machine
    from mvde.errors import ReportError, UsageError

    if max_regression is not None and path is None:
        raise UsageError("--max-regression needs a report to compare with: --compare old.json")
    if max_regression is not None and not 0 < max_regression < math.inf:
        raise UsageError(f"--max-regression is a ratio of times, such as 1.05, but got {max_regression}")
    if path is None:
        return None
    report = read_report(path)
    differences = machine_differences(report["machine"], describe_machine())
    if differences and max_regression is not None:
        raise ReportError(
            f"{path} was measured on another machine ({'; '.join(differences)}), so that --max-regression would judge "
            "the machines; leave it out to see the ratios"
        )
    return report


def _compared(before: dict[str, Any], report: Report) -> Report:
    import dataclasses

    from mvde.bench.compare import compare, machine_differences

    plain = report.to_dict()
    differences = machine_differences(before["machine"], report.machine)
    notes = [f"the old report is of another machine: {'; '.join(differences)}"] if differences else []
    return dataclasses.replace(report, comparisons=compare(before, plain), notes=notes)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from mvde.bench.report import machine_line, table

    console = Console()
    console.print(table(report.measurements))
    print(machine_line(report))
    if report.comparisons:
        ratios = Table("new / old (95 % interval)", "median", "mean", "p99")
        for one in report.comparisons:
            ratios.add_row(one.engine, str(one.p50), str(one.mean), str(one.p99))
        console.print(ratios)
    for warning in report.warnings:
        Console(stderr=True).print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


def _write(
    report: Report, assessor: Assessor, json_path: Path | None, markdown_path: Path | None, html_path: Path | None
) -> None:
    from mvde.bench.report import markdown
    from mvde.files import atomic_write

    texts: list[tuple[Path, str]] = []
    if json_path is not None:
        texts.append((json_path, report.to_json()))
    if markdown_path is not None:
        texts.append((markdown_path, markdown(report)))
    if html_path is not None:
        from mvde.bench.page import page

        texts.append((html_path, page(report, assessor.pictures)))
    for path, text in texts:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _artifacts(
    engines: list[str] | None, name: str | None, res: list[str] | None, batch: int | None, folder: Path
) -> list[EngineArtifact]:
    """The engines that the options name; with none named, every engine there is."""
    from mvde.artifact import find_engines
    from mvde.engines.store import find
    from mvde.resolution import parse_resolution

    found = []
    for resolution in [parse_resolution(text) for text in res] if res else [None]:
        if engines:
            found += [find(text, name=name, resolution=resolution, batch=batch, root=folder) for text in engines]
        else:
            found += find_engines(name, resolution, folder=folder, batch=batch)
    return list({artifact.path: artifact for artifact in found}.values())
