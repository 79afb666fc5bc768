"""``mvde data``: synthetic data sets, and data sets in shards, for training and evaluation."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvde.cli.shared_options import DEPTH_SCALE_HELP, FORMAT_HELP, OUT_HELP, SEED_HELP, SPLIT_HELP
from mvde.cli.terminal import console, say
from mvde.datasets.formats import DataFormat, ShardKind
from mvde.datasets.splits import Split
from mvde.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def register(app: typer.Typer) -> None:
    """Add the verb and its sub-verbs to the application."""
    data = typer.Typer(no_args_is_help=True, help="Generate and pack data sets.", rich_markup_mode=None)
    data.callback()(_data)
    data.command("synth")(synth)
    data.command("pack")(pack)
    data.command("index")(index)
    app.add_typer(data, name="data")


def _data() -> None:
    """Generate and pack data sets."""


def synth(
    count: Annotated[int, typer.Option("--count", help="Number of frames, or of clips with --video.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} An interrupted run is resumed.")],
    size: Annotated[str, typer.Option("--size", help="Frame size in pixels, H or HxW.")] = "192x192",
    seed: Annotated[int, typer.Option("--seed", help=f"{SEED_HELP} Equal seeds give equal frames.")] = 0,
    split: Annotated[
        Split, typer.Option("--split", help=f"{SPLIT_HELP} Splits share no scenes, even with equal seeds.")
    ] = Split.TRAIN,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes. Default: one per core.")] = None,
    video: Annotated[bool, typer.Option("--video", help="Render clips along paths of robots and arms.")] = False,
    clip_frames: Annotated[
        int | None, typer.Option("--clip-frames", help="Frames of a clip, for --video. Default: 60.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames per second, for --video, at most 30. Default: 30.")
    ] = None,
    rolling_shutter: Annotated[
        float | None,
        typer.Option(
            "--rolling-shutter", metavar="MS", help="Expose the bottom row so much later than the top, for --video."
        ),
    ] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help="Rooms without texture, with tables alone in them, for --video.")
    ] = False,
) -> None:
    """Render synthetic indoor scenes from a robot's viewpoint.

    Writes RGB, metric depth and intrinsics. Runs on the CPU without a display.

    With --video it writes clips (--format clips): drives forward, turns, stop and go, shaking, lateral moves, an arm,
    people and small things that move, cuts, and a camera that stands, in turn. Exposure and white balance hunt, noise
    is fresh in each frame, motion blurs. Poses come with the frames, and from them the height and pitch of the camera.
    With --rolling-shutter, depth and pose are those of the moment when the middle row is exposed.
    """
    from mvde.resolution import parse_resolution

    resolution = parse_resolution(size)
    given: dict[str, Any] = {
        "num_frames": clip_frames,
        "fps": fps,
        "rolling_shutter_ms": rolling_shutter,
        "bare": bare or None,
    }
    of_clips = {name: value for name, value in given.items() if value is not None}
    if of_clips and not video:
        raise UsageError(
            "--clip-frames, --fps, --rolling-shutter and --bare are of clips; give --video too, or leave them out"
        )
    num_workers = workers or os.cpu_count() or 1
    if video:
        from mvde.datasets.clips import DEFAULT_FRAMES, generate_clips

        render: Callable[..., int] = partial(generate_clips, **of_clips)
        what = f"clips of {of_clips.get('num_frames', DEFAULT_FRAMES)} frames"
    else:
        from mvde.datasets.synthetic import generate

        render, what = generate, "frames"
    with _bar("rendering", count) as show:
        made = render(out, count, size=resolution, seed=seed, split=split, num_workers=num_workers, progress=show)
    say(f"{out}: {count} {what} of {resolution[0]}x{resolution[1]}, {made} of them new")


def pack(
    source: Annotated[Path, typer.Argument(metavar="DATA", help="Data set with depth, a folder or file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=f"{OUT_HELP} An interrupted run is resumed.")],
    data_format: Annotated[DataFormat, typer.Option("--format", help=FORMAT_HELP)] = DataFormat.FOLDER,
    shard_format: Annotated[ShardKind, typer.Option("--shard-format", help="Files to write.")] = ShardKind.WEBDATASET,
    shard_frames: Annotated[int, typer.Option("--shard-frames", min=1, help="Frames of a shard.")] = 1000,
    depth_scale: Annotated[
        float | None, typer.Option("--depth-scale", help=f"{DEPTH_SCALE_HELP} For --format folder.")
    ] = None,
    split: Annotated[Split | None, typer.Option("--split", help=f"{SPLIT_HELP} Default: all frames.")] = None,
) -> None:
    """Write a data set in shards, WebDataset tars or Parquet files, for training on many machines.

    Reading them back (--format shards) gives equal frames.
    """
    from mvde.datasets.formats import open_dataset
    from mvde.datasets.pack import pack as write

    dataset = open_dataset(data_format, source, depth_scale, split)
    name = source.resolve().name  # without the folders above, which another machine may have elsewhere
    made_from = f"{name}, {data_format} of {len(dataset)} frames, split {split}, depth scale {depth_scale}"
    with _bar("packing", len(dataset)) as show:
        made = write(dataset, out, shard_format, shard_frames, made_from, show)
    say(f"{out}: {len(dataset)} frames in shards of {shard_frames}, {made} shards of them new")


def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of .tar or .parquet files.")],
    depth_scale: Annotated[
        float | None, typer.Option("--depth-scale", help=f"{DEPTH_SCALE_HELP} For 16-bit PNG.")
    ] = None,
) -> None:
    """List shards that another program wrote, so that they can be read with --format shards.

    Checks that each has pictures with depth, and writes shards.jsonl and the index of each tar.
    """
    from mvde.datasets.pack import index_shards

    with _bar("reading", None) as show:
        found = index_shards(folder, depth_scale, show)
    say(f"{folder}: {found} frames")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows the number of finished frames or shards."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
