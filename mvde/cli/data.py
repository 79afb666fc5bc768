"""``mvde data``: synthetic data sets for training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.shared_options import OUT_HELP, SEED_HELP, SPLIT_HELP
from mvde.cli.terminal import console, say
from mvde.datasets.splits import Split
from mvde.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb and its sub-verb to the application."""
    data = typer.Typer(no_args_is_help=True, help="Generate data sets.", rich_markup_mode=None)
    data.callback()(_data)
    data.command("synth")(synth)
    app.add_typer(data, name="data")


def _data() -> None:
    """Generate data sets."""


def synth(
    count: Annotated[int, typer.Option("--count", help="Number of frames, or of clips with --video.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} An interrupted run is resumed.")],
    size: Annotated[str, typer.Option("--size", help="Frame size in pixels, H or HxW.")] = "192x192",
    seed: Annotated[int, typer.Option("--seed", help=f"{SEED_HELP} Equal seeds give equal frames.")] = 0,
    split: Annotated[
        Split, typer.Option("--split", help=f"{SPLIT_HELP} Splits share no scenes, even with equal seeds.")
    ] = Split.TRAIN,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes. Default: one per core.")] = None,
    video: Annotated[
        bool, typer.Option("--video", help="Render clips of 30 frames per second along paths of robots and arms.")
    ] = False,
    clip_frames: Annotated[
        int | None, typer.Option("--clip-frames", help="Frames of a clip, for --video. Default: 60.")
    ] = None,
) -> None:
    """Render synthetic indoor scenes from a robot's viewpoint.

    Writes RGB, metric depth and intrinsics. Runs on the CPU without a display.

    With --video it writes clips (--format clips): drives forward, turns, stop and go, shaking, lateral moves, an arm,
    people and small things that move, cuts, and a camera that stands, in turn. Exposure and white balance hunt, noise
    is fresh in each frame, motion blurs. Poses come with the frames, and from them the height and pitch of the camera.
    """
    from mvde.resolution import parse_resolution

    resolution = parse_resolution(size)
    if clip_frames is not None and not video:
        raise UsageError("--clip-frames is the length of clips; give --video too, or leave it out")
    num_workers = workers or os.cpu_count() or 1
    if video:
        from mvde.datasets.clips import DEFAULT_FRAMES, generate_clips

        render: Callable[..., int] = partial(generate_clips, num_frames=clip_frames or DEFAULT_FRAMES)
        what = f"clips of {clip_frames or DEFAULT_FRAMES} frames"
    else:
        from mvde.datasets.synthetic import generate

        render, what = generate, "frames"
    with _progress(count) as show:
        made = render(out, count, size=resolution, seed=seed, split=split, num_workers=num_workers, progress=show)
    say(f"{out}: {count} {what} of {resolution[0]}x{resolution[1]}, {made} of them new")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar, from the first report on: errors of arguments must print one line only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(stderr=True))
    task = bar.add_task("", total=total)

    def show(done: int) -> None:
        bar.start()
        bar.update(task, completed=done)

    try:
        yield show
    finally:
        if bar.live.is_started:  # stopping an unstarted bar prints an empty line
            bar.stop()
