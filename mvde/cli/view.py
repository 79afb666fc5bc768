"""``mvde view``: watch depth of files and live sources in Foxglove, or record it for Rerun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.groups import with_groups
from mvde.cli.live_options import LiveOptions
from mvde.cli.run_settings import RunSettings
from mvde.cli.shared_options import CALIBRATION_HELP, FIT_HELP, CameraOptions, EngineSelection
from mvde.cli.terminal import say
from mvde.errors import UsageError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from mvde.robot.foxglove_server import FoxgloveServer
    from mvde.robot.viewed import Viewed, Viewer


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("view")(with_groups(view))


def view(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Image, video, folder, quoted pattern, or a live source.")
    ],
    selection: EngineSelection,
    camera: CameraOptions,
    live: LiveOptions,
    fit: Annotated[Fit | None, typer.Option("--fit", help=FIT_HELP)] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", metavar="FILE", help=CALIBRATION_HELP)] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port of the viewers' server on 127.0.0.1, 0 for a free one. Default: 8765, or no server with --rrd.",
        ),
    ] = None,
    rrd: Annotated[
        Path | None, typer.Option("--rrd", metavar="FILE", help="Recording for Rerun (.rrd) to write.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="FPS", help="Frames per second of files. Default: a video's own, or 2."),
    ] = None,
) -> None:
    """Watch depth of pictures, videos and live sources.

    Serves picture, depth, patch statistics and latency to Foxglove and other programs that speak its WebSocket
    protocol, on this machine alone; --rrd records them for Rerun. Files begin when a viewer subscribes, and the last
    frame stays until Ctrl-C. A live source is a camera (/dev/video0) or a stream (rtsp://, http://), of which the
    newest frame is always the next one.
    """
    from mvde.robot.live_address import is_live

    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(f"--rate is a number of frames per second above 0, but got {rate:g}")
    settings = RunSettings([source], selection, camera, None, fit, calibration, verb="mvde view")
    if is_live(source):
        if rate is not None:
            raise UsageError("--rate would have no effect: a live source comes at its own rate")
        return _view_live(settings, live, _Outputs(port, rrd))
    live.check_unused()
    _view_files(settings, rate, _Outputs(port, rrd))


@dataclass(frozen=True)
class _Outputs:
    """Where frames go: a server on ``port``, by default only without a recording, and the recording ``rrd``."""

    port: int | None
    rrd: Path | None

    def open(self, stack: ExitStack) -> tuple[FoxgloveServer | None, list[Viewer]]:
        """Open the viewers, which ``stack`` closes; also the server among them."""
        server: FoxgloveServer | None = None
        viewers: list[Viewer] = []
        if self.port is not None or self.rrd is None:
            from mvde.robot.foxglove_server import PORT, FoxgloveServer

            server = FoxgloveServer(PORT if self.port is None else self.port)
            viewers.append(server)
            stack.callback(server.close)
        if self.rrd is not None:
            from mvde.robot.rerun_recording import RerunRecording

            viewers.append(RerunRecording(self.rrd))
            stack.callback(viewers[-1].close)
        return server, viewers


def _view_live(settings: RunSettings, live: LiveOptions, outputs: _Outputs) -> None:
    from mvde.cli.run_live import check_any, counts_text, open_live
    from mvde.cli.view_sources import live_frames
    from mvde.robot.newest import LiveCounts

    counts = LiveCounts()
    stream = open_live(settings.inputs, live)
    with ExitStack() as stack:
        stack.enter_context(stream).wait()
        server, viewers = outputs.open(stack)
        runtime = stack.enter_context(settings.load())
        _say_where(server, "")
        try:
            _show(live_frames(runtime, stream, counts, live, settings.fit), viewers)
        finally:
            say(f"{counts.num_inferred} frames of {stream.address.shown}; {counts_text(counts, stream)}")
        check_any(counts, stream, live)
    _say_recording(outputs)


def _view_files(settings: RunSettings, rate: float | None, outputs: _Outputs) -> None:
    from mvde.cli.run_frames import Skipped
    from mvde.cli.view_sources import file_frames, paced, rate_of
    from mvde.runtime.sources import expand_inputs

    paths = expand_inputs(settings.inputs)
    skipped = Skipped(len(paths))
    with ExitStack() as stack:
        server, viewers = outputs.open(stack)
        runtime = stack.enter_context(settings.load())
        frames = file_frames(runtime, paths, rate or rate_of(paths), settings.fit, skipped.add)
        if server is not None:
            frames = paced(_from_first_viewer(frames, server))
        last = _show(frames, viewers)
        skipped.check()
        if server is not None and last is not None:
            _hold(server, last)
    _say_recording(outputs)


def _from_first_viewer(frames: Iterator[Viewed], server: FoxgloveServer) -> Iterator[Viewed]:
    """Yield the frames once a viewer has subscribed; the first one, shown to nobody, makes the topics known."""
    for number, viewed in enumerate(frames):
        if number == 0:
            server.show(viewed)
            _say_where(server, "; the frames begin when a viewer subscribes to a topic")
            server.wait_for_subscriber()
        yield viewed


def _show(frames: Iterator[Viewed], viewers: list[Viewer]) -> Viewed | None:
    """Show every frame as it comes; return the last one."""
    viewed = None
    for viewed in frames:
        for viewer in viewers:
            viewer.show(viewed)
    return viewed


def _hold(server: FoxgloveServer, last: Viewed) -> None:
    """Show the last frame to whoever subscribes, until Ctrl-C."""
    say("the last frame stays until Ctrl-C")
    while server.wait_for_subscriber():
        server.show(last)


def _say_where(server: FoxgloveServer | None, when: str) -> None:
    if server is not None:
        say(f"open {server.url} in Foxglove{when}; Ctrl-C ends")


def _say_recording(outputs: _Outputs) -> None:
    if outputs.rrd is not None:
        say(f"recorded in {outputs.rrd}")
