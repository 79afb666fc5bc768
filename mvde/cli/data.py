"""``mvde data``: synthetic data sets for training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.shared_options import OUT_HELP, SEED_HELP, SPLIT_HELP
from mvde.cli.terminal import console, say
from mvde.datasets.splits import Split


def register(app: typer.Typer) -> None:
    """Add the verb and its sub-verb to the application."""
    data = typer.Typer(no_args_is_help=True, help="Generate data sets.", rich_markup_mode=None)
    data.callback()(_data)
    data.command("synth")(synth)
    app.add_typer(data, name="data")


def _data() -> None:
    """Generate data sets."""


def synth(
    count: Annotated[int, typer.Option("--count", help="Number of frames.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} An interrupted run is resumed.")],
    size: Annotated[str, typer.Option("--size", help="Frame size in pixels, H or HxW.")] = "192x192",
    seed: Annotated[int, typer.Option("--seed", help=f"{SEED_HELP} Equal seeds give equal frames.")] = 0,
    split: Annotated[
        Split, typer.Option("--split", help=f"{SPLIT_HELP} Splits share no scenes, even with equal seeds.")
    ] = Split.TRAIN,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes. Default: one per core.")] = None,
) -> None:
    """Render synthetic indoor scenes from a robot's viewpoint.

    Writes RGB, metric depth and intrinsics. Runs on the CPU without a display.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mvde.datasets.synthetic import generate
    from mvde.resolution import parse_resolution

    resolution = parse_resolution(size)
    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(stderr=True))
    task = bar.add_task("", total=count)

    def show(done: int) -> None:
        bar.start()  # not earlier: argument errors must print one line only
        bar.update(task, completed=done)

    try:
        made = generate(out, count, size=resolution, seed=seed, split=split, num_workers=workers, progress=show)
    finally:
        if bar.live.is_started:  # stopping an unstarted bar prints an empty line
            bar.stop()
    say(f"{out}: {count} frames of {resolution[0]}x{resolution[1]}, {made} of them new")
