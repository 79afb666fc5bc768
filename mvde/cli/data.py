"""``mvde data``: synthetic frames to train and evaluate on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.shared_options import OUT_HELP, SPLIT_HELP
from mvde.cli.terminal import console, say
from mvde.datasets.splits import Split


def register(app: typer.Typer) -> None:
    """Add the verb and its one sub-verb to the application."""
    data = typer.Typer(no_args_is_help=True, help="Make data sets.", rich_markup_mode=None)
    data.callback()(_data)
    data.command("synth")(synth)
    app.add_typer(data, name="data")


def _data() -> None:
    """Make data sets."""


def synth(
    count: Annotated[int, typer.Option("--count", help="Frames that the folder shall hold.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} One that a cut-off run left is filled up.")],
    size: Annotated[str, typer.Option("--size", help="Size of a frame, H or HxW, in pixels.")] = "192x192",
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal frames.")] = 0,
    split: Annotated[
        Split, typer.Option("--split", help=f"{SPLIT_HELP} Parts share no scene, even with equal seeds.")
    ] = Split.TRAIN,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes. Default: one per core.")] = None,
) -> None:
    """Render indoor scenes as a robot sees them: RGB, metric depth and intrinsics, on the CPU, without a screen."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mvde.datasets.synthetic import generate
    from mvde.resolution import parse_resolution

    resolution = parse_resolution(size)
    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(stderr=True))
    task = bar.add_task("", total=count)

    def show(done: int) -> None:
        bar.start()  # only now: an error in the arguments stays one line
        bar.update(task, completed=done)

    try:
        made = generate(out, count, size=resolution, seed=seed, split=split, num_workers=workers, progress=show)
    finally:
        if bar.live.is_started:  # stopping one that was not would print an empty line
            bar.stop()
    say(f"{out}: {count} frames of {resolution[0]}x{resolution[1]}, {made} of them made now")
