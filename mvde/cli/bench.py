"""``mvde bench``: how long whole frames take, and what really ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mvde.artifact import Artifact


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
    engine_dir: Annotated[Path, typer.Option("--engine-dir", help="Folder that holds engines.")] = Path("engines"),
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of photographs. Default: those that ship.")
    ] = None,
    fit: Annotated[str, typer.Option("--fit", help="stretch, letterbox or crop.")] = "stretch",
    duration: Annotated[float, typer.Option("--duration", help="Seconds per engine (at least ten frames).")] = 5.0,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames per engine, instead of --duration.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
) -> None:
    """Measure whole frames, from camera to statistics.

    Several engines take turns (A B A B), so that a noisy machine does not decide between them.
    """
    import json

    from rich.console import Console

    from mvde.artifact import atomic_write
    from mvde.bench.measure import describe_machine, measure_engines, peak_memory_bytes
    from mvde.bench.report import table, to_dict
    from mvde.cli.options import read_photographs
    from mvde.runtime.image import check_fit

    artifacts = _artifacts(engine, name, res, engine_dir)
    photographs = read_photographs(images)
    console = Console(stderr=True)
    with console.status("measuring") as status:
        num_done = 0

        def count() -> None:
            nonlocal num_done
            num_done += 1
            status.update(f"measuring, {num_done} frames")

        measurements = measure_engines(
            artifacts, photographs, duration_s=duration, num_frames=frames, fit=check_fit(fit), on_frame=count
        )
    machine = describe_machine()
    Console().print(table(measurements))
    peak_mib = peak_memory_bytes() / 2**20
    print(f"{machine['cpu']}, {machine['num_cpus']} cores; peak memory of the process {peak_mib:.0f} MiB")
    if json_path is not None:
        with atomic_write(json_path) as temporary:
            temporary.write_text(json.dumps(to_dict(measurements, machine, peak_memory_bytes()), indent=2) + "\n")


def _artifacts(engines: list[str] | None, name: str | None, res: list[str] | None, folder: Path) -> list[Artifact]:
    """The engines that the options name; with none named, every engine there is."""
    from mvde.artifact import find_engines
    from mvde.config import parse_resolution
    from mvde.engines.store import find

    found = []
    for resolution in [parse_resolution(text) for text in res] if res else [None]:
        if engines:
            found += [find(text, name=name, resolution=resolution, root=folder) for text in engines]
        else:
            found += find_engines(name, resolution, folder=folder)
    return list({artifact.path: artifact for artifact in found}.values())
