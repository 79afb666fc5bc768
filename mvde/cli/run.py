"""``mvde run``: images and videos → depth in millimetres, a picture, and patch statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mvde.runtime.depth import DepthResult, DepthRuntime
    from mvde.runtime.placement import Fit
    from mvde.runtime.sources import Frame


def register(app: typer.Typer) -> None:
    """Nothing; adds the verb to the application."""
    app.command("run")(run)


def run(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, quoted patterns, videos.")],
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", "-e", help="Engine id ([backend:]precision) or an engine's folder. Default: the only one."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("depth"),
    fit: Annotated[str, typer.Option("--fit", help="stretch, letterbox or crop.")] = "stretch",
    name: Annotated[str | None, typer.Option("--name", help="Model name, where several were built.")] = None,
    res: Annotated[str | None, typer.Option("--res", help="Resolution, H or HxW, where several were built.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per call, where several were built.")
    ] = None,
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help="Folder that holds engines.")] = Path("engines"),
) -> None:
    """Write depth, a picture and patch statistics of every frame.

    For each frame: NAME.depth.png (16-bit, millimetres), NAME.depth.jpg (a picture with its scale) and NAME.stats.npz
    (one row per patch). Relative depth has no unit and is written as NAME.depth.npy instead.
    """
    from mvde.resolution import parse_resolution
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.placement import check_fit
    from mvde.runtime.sources import count_frames, expand_inputs

    how = check_fit(fit)
    paths = expand_inputs(inputs)
    resolution = parse_resolution(res) if res else None
    with DepthRuntime.load(engine, name=name, resolution=resolution, batch=batch, engine_dir=engine_dir) as runtime:
        info = runtime.info
        size = "x".join(map(str, info.resolution))
        print(f"{runtime.manifest.name} {size}, {info.id}: computes in {info.executed_precision} on {info.device}")
        total_ms, num_frames = 0.0, 0
        for frame, result in _progress(_results(runtime, paths, how), count_frames(paths)):
            _write(out, frame, result, runtime)
            total_ms, num_frames = total_ms + result.timings.total_ms, num_frames + 1
    print(f"{num_frames} frame{'s' if num_frames != 1 else ''} in {out}/, {total_ms / max(num_frames, 1):.1f} ms each")


def _results(runtime: DepthRuntime, paths: list[Path], fit: Fit) -> Iterator[tuple[Frame, DepthResult]]:
    """Frames with their results; the frames in flight are kept until their result comes out."""
    from collections import deque

    from mvde.runtime.sources import read_frames

    waiting: deque[Frame] = deque()

    def images() -> Iterator[object]:
        for frame in read_frames(paths):
            waiting.append(frame)
            yield frame.image

    for result in runtime.stream(images(), fit):  # type: ignore[arg-type]
        yield waiting.popleft(), result


def _progress(results: Iterator[tuple[Frame, DepthResult]], total: int | None) -> Iterator[tuple[Frame, DepthResult]]:
    from rich.console import Console
    from rich.progress import track

    yield from track(results, description="depth", total=total, console=Console(stderr=True), disable=total == 1)


def _write(folder: Path, frame: Frame, result: DepthResult, runtime: DepthRuntime) -> None:
    """The three files of a frame, each complete or not there at all."""
    import numpy as np
    from PIL import Image

    from mvde.files import atomic_write
    from mvde.runtime.render import depth_picture, millimetres

    manifest = runtime.manifest
    relative = manifest.depth_kind == "relative"
    if relative:  # millimetres would be a lie
        with atomic_write(folder / f"{frame.stem}.depth.npy") as path:
            np.save(path, result.depth)
    else:
        with atomic_write(folder / f"{frame.stem}.depth.png") as path:
            Image.fromarray(millimetres(result.depth)).save(path)
    with atomic_write(folder / f"{frame.stem}.depth.jpg") as path:
        depth_picture(result.depth, unit="" if relative else "m").save(path, quality=92)
    with atomic_write(folder / f"{frame.stem}.stats.npz") as path:
        np.savez_compressed(
            path,
            stats=result.stats,
            columns=np.array(result.stat_names),
            grid=np.array(result.grid),
            patch_size=manifest.patch_size,
            engine=runtime.info.id,
        )
