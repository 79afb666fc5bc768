"""Options of verbs that write logs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from mvde.cli.shared_options import POINT_STEP_HELP, SCAN_HELP
from mvde.errors import UsageError
from mvde.robot.depth_encoding import DepthEncoding


@dataclass(frozen=True)
class LogOptions:
    """Which pictures of a log are read (``topic``), and what is written beside their depth."""

    topic: Annotated[
        tuple[str, ...],
        typer.Option(
            "--topic",
            help="Topic of a log with a camera's pictures; repeatable. Default: the only one.",
        ),
    ] = ()
    depth_encoding: Annotated[
        DepthEncoding,
        typer.Option(
            "--depth-encoding",
            help="Encoding of depth in a log: metres, millimetres, or these as PNG.",
        ),
    ] = DepthEncoding.FLOAT
    point_step: Annotated[
        int | None,
        typer.Option("--point-step", min=1, metavar="N", help=f"{POINT_STEP_HELP} Of a log; default: no points."),
    ] = None
    scan: Annotated[
        Path | None,
        typer.Option("--scan", metavar="FILE", help=f"{SCAN_HELP} Of a log; default: no scan."),
    ] = None
    copy_topics: Annotated[
        bool, typer.Option("--copy-topics", help="Copy all topics of a log that was read into the one written.")
    ] = False

    def check_unused(self) -> None:
        """Raise :class:`UsageError` if any was given, for inputs that are no log."""
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if changed:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise UsageError(
                f"{options} would have no effect: the input is no log, which is an .mcap file, a rosbag2 folder or a "
                ".bag"
            )
