"""``mvde run``: depth and patch statistics of whatever a camera recorded; each kind of input has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.floor_options import FloorOptions
from mvde.cli.groups import with_groups
from mvde.cli.live_options import LiveOptions
from mvde.cli.log_options import LogOptions
from mvde.cli.on_time import DEADLINE_HELP
from mvde.cli.run_settings import RunSettings
from mvde.cli.shared_options import CALIBRATION_HELP, FIT_HELP, OUT_HELP, CameraOptions, EngineSelection
from mvde.runtime.placement import Fit


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("run")(with_groups(run))


def run(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, videos, folders, quoted patterns; a log; or a live source."),
    ],
    selection: EngineSelection,
    camera: CameraOptions,
    log: LogOptions,
    live: LiveOptions,
    floor: FloorOptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=f"{OUT_HELP} For a log: FILE.mcap, or a rosbag2 folder. Default: in depth."),
    ] = None,
    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", metavar="FILE", help=CALIBRATION_HELP)] = None,
    stabilize: Annotated[
        bool, typer.Option("--stabilize", help="Make depth and statistics steady over the frames of a camera.")
    ] = False,
    deadline: Annotated[float | None, typer.Option("--deadline", metavar="MS", help=DEADLINE_HELP)] = None,
) -> None:
    """Estimate depth and patch statistics of images, videos, robot logs and live sources.

    Writes for each frame NAME.depth.png (16-bit, millimetres), NAME.depth.jpg (visualisation with scale) and
    NAME.stats.npz (one row per patch). Relative and inverse depth are not metres and are written as NAME.depth.npy
    instead, unless --calibration gives them metres. Metres depend on the camera, which is assumed unless --camera or
    --fov gives it. A missing engine is built first if only one graph matches. Unreadable inputs are skipped and
    reported; the exit status is then 1.

    A log is an MCAP file, a rosbag2 folder or a ROS 1 bag. It gives a log of depth beside the camera's topics, with
    the stamps and the CameraInfo of its pictures; no log is overwritten.

    A live source is a camera (/dev/video0) or a stream (rtsp://, http://): its newest frame is always the next one,
    frames that pass meanwhile are counted, and STEM.frames.jsonl holds when each was received.

    With --stabilize depth no longer flickers: it is averaged over the frames of a video, of a live source or of each
    camera of a log, along the motion of the picture, and begins anew at cuts. Pictures are taken as the frames of one
    video, in their order.

    With --deadline, several engines of one model run by turns (--res 192 --res 448): each frame has the largest
    resolution that is in time, from what the last frames took. --calibration is the folder then that mvde calibrate
    wrote one for each engine to.

    With --camera-height the floor gives each frame's depth its scale. A frame that shows no floor keeps its own, and is
    counted. An error of two degrees in --pitch does more harm than good.
    """
    from mvde.robot.live_address import is_live
    from mvde.robot.logs import is_log

    settings = RunSettings(
        inputs, selection, camera, out, fit, calibration, stabilize=stabilize, deadline_ms=deadline, floor=floor
    )
    if any(is_log(Path(one)) for one in inputs):
        from mvde.cli.run_log import run_log

        live.check_unused()
        return run_log(settings, log)
    log.check_unused()
    if any(is_live(one) for one in inputs):
        from mvde.cli.run_live import run_live

        return run_live(settings, live)
    live.check_unused()
    from mvde.cli.run_frames import run_frames

    run_frames(settings)
