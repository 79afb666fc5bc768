"""``mvde run``: depth and patch statistics of whatever a camera recorded; each kind of input has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.groups import with_groups
from mvde.cli.live_options import LiveOptions
from mvde.cli.run_settings import RunSettings
from mvde.cli.shared_options import CALIBRATION_HELP, FIT_HELP, OUT_HELP, CameraOptions, EngineSelection
from mvde.runtime.placement import Fit


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("run")(with_groups(run))


def run(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, videos, folders, quoted patterns, or a live source."),
    ],
    selection: EngineSelection,
    camera: CameraOptions,
    live: LiveOptions,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=f"{OUT_HELP} Default: depth.")] = None,
    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", metavar="FILE", help=CALIBRATION_HELP)] = None,
) -> None:
    """Estimate depth and patch statistics of images, videos and live sources.

    Writes for each frame NAME.depth.png (16-bit, millimetres), NAME.depth.jpg (visualisation with scale) and
    NAME.stats.npz (one row per patch). Relative and inverse depth are not metres and are written as NAME.depth.npy
    instead, unless --calibration gives them metres. Metres depend on the camera, which is assumed unless --camera or
    --fov gives it. A missing engine is built first if only one graph matches. Unreadable inputs are skipped and
    reported; the exit status is then 1.

    A live source is a camera (/dev/video0) or a stream (rtsp://, http://): its newest frame is always the next one,
    frames that pass meanwhile are counted, and STEM.frames.jsonl holds when each was received.
    """
    from mvde.robot.live_address import is_live

    settings = RunSettings(inputs, selection, camera, out, fit, calibration)
    if any(is_live(one) for one in inputs):
        from mvde.cli.run_live import run_live

        return run_live(settings, live)
    live.check_unused()
    from mvde.cli.run_frames import run_frames

    run_frames(settings)
