"""``mvde stats``: patch statistics of any number of pictures, one file for each shard of the input."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.bulk.formats import OutputFormat, StatsDtype
from mvde.cli.groups import with_groups
from mvde.cli.shared_options import CALIBRATION_HELP, FIT_HELP, OUT_HELP, CameraOptions, EngineSelection, only
from mvde.cli.terminal import console, say
from mvde.errors import MvdeError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from mvde.bulk.inputs import InputOptions
    from mvde.bulk.local import Failure
    from mvde.bulk.patches import Patches
    from mvde.bulk.run import Part, Runner, Summary
    from mvde.bulk.work import CameraRule, ShardReport


@dataclass(frozen=True)
class BulkInputOptions:
    """How inputs are read and cut into shards, see :class:`mvde.bulk.inputs.InputOptions`; ``shard`` is a part i/n."""

    image_root: Annotated[
        str, typer.Option("--image-root", metavar="DIR|URL", help="Folder that the paths of lists are relative to.")
    ] = ""
    column: Annotated[
        str | None,
        typer.Option("--column", help="Parquet column with the pictures. Default: the only one of bytes."),
    ] = None
    shard_size: Annotated[
        int,
        typer.Option("--shard-size", min=1, help="Pictures of a shard of files; tars and Parquet stay as they are."),
    ] = 1000
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Number of pictures to take.")] = None
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Do part I of N of the shards, for arrays of jobs."),
    ] = None

    @property
    def reading(self) -> InputOptions:
        """The options without the part."""
        from mvde.bulk.inputs import InputOptions

        return InputOptions(self.shard_size, self.image_root, self.column, self.limit)


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("stats")(with_groups(stats))


def stats(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, .tar (WebDataset), .parquet, LLaVA .json or .jsonl, .txt lists, - for a list on standard "
            "input; also URLs (s3://...) and quoted patterns.",
        ),
    ],
    selection: EngineSelection,
    reading: BulkInputOptions,
    camera: CameraOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help=OUT_HELP)],
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes. Default: one per core, each an engine of one thread."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--stats", metavar="A,B,...", help="Statistics of each patch. Default: those of the engine."),
    ] = None,
    dtype: Annotated[
        StatsDtype, typer.Option("--dtype", help="f2: float16, with the variance as its root; f4: float32.")
    ] = StatsDtype.F2,
    output_format: Annotated[
        OutputFormat, typer.Option("--output-format", help="Files to write. Tars hold float32 whatever --dtype.")
    ] = OutputFormat.PARQUET,
    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", metavar="FILE", help=CALIBRATION_HELP)] = None,
    processor: Annotated[
        Path | None,
        typer.Option(
            "--processor",
            metavar="DIR",
            help="Folder of a vision-language model: rows for exactly the patches that its processor makes of each "
            "picture. Needs mvde[vlm].",
        ),
    ] = None,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Compute shards with error rows again.")] = False,
    max_error_rate: Annotated[
        float,
        typer.Option("--max-error-rate", min=0, max=1, help="Share of error rows above which the exit status is 1."),
    ] = 0.05,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="local|ADDRESS",
            help="Run on Ray: a cluster of its own, or one by its address. Ray opens ports on all interfaces of a "
            "machine, without passwords: use it in a network that you trust.",
        ),
    ] = None,
) -> None:
    """Compute patch statistics of any number of pictures.

    Writes one file for each shard of the input, published in one step. The same command continues an interrupted run:
    finished shards are not touched. A picture that cannot be read is a row with its error. The folder remembers what
    its statistics were computed with and refuses others. Needs mvde[bulk]; --ray needs mvde[ray].
    """
    from mvde.bulk.run import Part, StatsOptions, compute_stats
    from mvde.cli.autobuild import build_missing
    from mvde.engines.store import find

    engine = only(selection.engine, "--engine", "mvde stats takes one engine")
    resolution = only(selection.resolutions, "--res", "mvde stats takes one resolution")
    build_missing(selection)
    found = find(engine, name=selection.name, resolution=resolution, batch=selection.batch, root=selection.engine_dir)
    options = StatsOptions(
        stats=None if columns is None else tuple(columns.split(",")),
        dtype=dtype,
        output_format=output_format,
        fit=fit,
        camera=_camera_rule(camera),
        calibration=calibration,
        patches=_patches(processor),
    )
    num_workers = workers or len(os.sched_getaffinity(0))
    part = None if reading.shard is None else Part.parse(reading.shard)
    with _Progress(sys.stderr) as progress:
        progress.count(inputs, reading.reading, part)
        summary = compute_stats(
            inputs,
            found.path,
            out,
            input_options=reading.reading,
            options=options,
            part=part,
            num_workers=num_workers,
            retry_errors=retry_errors,
            runner=_runner(ray, workers, selection.export_dir),
            on_report=progress.add,
        )
    _say(summary, out)
    summary.check(max_error_rate)


def _camera_rule(camera: CameraOptions) -> CameraRule:
    from mvde.bulk.work import CameraRule
    from mvde.camera import parse_fov
    from mvde.errors import UsageError

    if camera.fov is not None:
        return CameraRule(fov_deg=parse_fov(camera.fov))
    if camera.camera is not None and camera.frame is None and camera.known_camera is None:
        raise UsageError("--camera fx,fy,cx,cy needs the size of its pictures: --frame HxW")
    return CameraRule(camera=camera.known_camera)


def _patches(processor: Path | None) -> Patches:
    if processor is None:
        from mvde.bulk.patches import EnginePatches

        return EnginePatches()
    from mvde.vlm.bulk_patches import ProcessorPatches

    return ProcessorPatches(processor)


def _runner(address: str | None, num_actors: int | None, export_dir: Path) -> Runner | None:
    if address is None:
        return None
    from mvde.bulk.ray_pool import ray_runner

    return ray_runner(address, num_actors, export_dir)


class _Progress:
    """Progress on a terminal: shards, pictures a second, errors."""

    def __init__(self, stream: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            MofNCompleteColumn(),
            TextColumn("shards"),
            BarColumn(),
            TextColumn("{task.fields[rows]} pictures, {task.fields[rate]:.0f}/s, {task.fields[errors]} errors"),
            TimeRemainingColumn(),
            console=console(stderr=True),
            disable=not stream.isatty(),
        )
        self._task = self._bar.add_task("stats", total=None, rows=0, rate=0.0, errors=0)
        self._rows = self._errors = 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def count(self, inputs: list[str], options: InputOptions, part: Part | None) -> None:
        """Count the shards in the background, for the time left; a list on standard input can be read only once."""
        from mvde.bulk.inputs import STANDARD_INPUT, list_shards
        from mvde.bulk.run import Part, select

        def count() -> None:
            with contextlib.suppress(MvdeError):  # the run reports it
                shards = select(list_shards(inputs, options), part or Part())
                self._bar.update(self._task, total=sum(1 for _ in shards))

        if STANDARD_INPUT not in inputs and not self._bar.disable:
            threading.Thread(target=count, name="mvde-count", daemon=True).start()

    def add(self, result: ShardReport | Failure) -> None:
        """Count a finished shard; a failed one is reported on a line of its own."""
        from mvde.bulk.local import Failure

        if isinstance(result, Failure):
            say(f"failed: {result.shard}: {result.reason}", file=sys.stderr)
            return
        self._rows, self._errors = self._rows + result.rows, self._errors + result.errors
        elapsed = self._bar.tasks[0].elapsed or 1.0
        self._bar.update(
            self._task, advance=1, rows=self._rows, rate=self._rows / max(elapsed, 1e-3), errors=self._errors
        )


def _say(summary: Summary, out: Path) -> None:
    """One line of counts, and one each for float32 columns and error examples."""
    rows = f"{summary.rows} pictures, {summary.errors} of them errors"
    shards = f"{summary.done} shards done" + (f", {summary.finished} were there" if summary.finished else "")
    say(f"{rows}, in {out}/ ({shards})")
    if summary.widened:
        say(f"stored as float32, since float16 would be off by more than 1 %: {', '.join(sorted(summary.widened))}")
    for example in summary.examples[:3]:
        say(f"error row: {example}", file=sys.stderr)
