"""Options of verbs that read live sources."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated

import typer

from mvde.errors import UsageError


@dataclass(frozen=True)
class LiveOptions:
    """How a live source is read: up to ``stop_after`` frames, within ``budget_ms`` and ``timeout_s``.

    ``capture_option`` holds NAME=VALUE as given.
    """

    stop_after: Annotated[
        int | None, typer.Option("--stop-after", min=1, help="Stop after this many frames of a live source.")
    ] = None
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget",
            metavar="MS",
            help="Age in milliseconds, counted from receiving a live frame, beyond which its result is late.",
        ),
    ] = None
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Longest wait for a frame of a live source in seconds.")
    ] = 10.0
    capture_option: Annotated[
        tuple[str, ...],
        typer.Option(
            "--capture-option",
            metavar="NAME=VALUE",
            help="Option of FFmpeg for a live source, e.g. video_size=1280x720 or rtsp_transport=udp; repeatable.",
        ),
    ] = ()

    def __post_init__(self) -> None:
        for option, value in (("--budget", self.budget_ms), ("--timeout", self.timeout_s)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} is a number above 0, but got {value:g}")

    def check_unused(self) -> None:
        """Raise :class:`UsageError` if any was given, for inputs that are not live."""
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if changed:
            named = {
                "stop_after": "--stop-after",
                "budget_ms": "--budget",
                "timeout_s": "--timeout",
                "capture_option": "--capture-option",
            }
            options = " and ".join(named[name] for name in changed)
            raise UsageError(
                f"{options} would have no effect: none of the inputs is a live source, such as /dev/video0 or rtsp://…"
            )
