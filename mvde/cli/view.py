"""``mvde view``: watch depth of files and live sources in Foxglove, or record it for Rerun."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvde.cli.floor_options import FloorOptions
from mvde.cli.groups import with_groups
from mvde.cli.live_options import LiveOptions
from mvde.cli.run_floor import FloorCounts, log_floor, say_tilt
from mvde.cli.run_settings import RunSettings
from mvde.cli.shared_options import (
    CALIBRATION_HELP,
    FIT_HELP,
    POINT_STEP_HELP,
    SCAN_HELP,
    CameraOptions,
    EngineSelection,
    only,
)
from mvde.cli.terminal import say
from mvde.errors import ImageError, UsageError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    from mvde.robot.foxglove_server import FoxgloveServer
    from mvde.robot.viewed import Viewed, Viewer
    from mvde.runtime.scan_settings import ScanSettings


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("view")(with_groups(view))


def view(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Image, video, folder, quoted pattern; a log; or a live source.")
    ],
    selection: EngineSelection,
    camera: CameraOptions,
    live: LiveOptions,
    floor: FloorOptions,
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
        typer.Option(
            "--rate", metavar="FPS", help="Frames per second of pictures and videos. Default: a video's own, or 2."
        ),
    ] = None,
    point_step: Annotated[
        int | None,
        typer.Option("--point-step", min=1, metavar="N", help=f"{POINT_STEP_HELP} Default: 4, where there are metres."),
    ] = None,
    scan: Annotated[Path | None, typer.Option("--scan", metavar="FILE", help=f"{SCAN_HELP} Default: no scan.")] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", help="Topic of a log with a camera's pictures; repeatable. One is shown at a time."),
    ] = None,
) -> None:
    """Watch depth of pictures, videos, robot logs and live sources.

    Serves picture, depth, points, scan, patch statistics and latency to Foxglove and other programs that speak its
    WebSocket protocol, on this machine alone; --rrd records them for Rerun. Files begin when a viewer subscribes, and
    the last frame stays until Ctrl-C. A live source is a camera (/dev/video0) or a stream (rtsp://, http://), of which
    the newest frame is always the next one.

    With --camera-height the floor gives depth its scale, as in mvde run; /floor tells what it gave each frame.
    """
    from mvde.robot.live_address import is_live
    from mvde.robot.logs import is_log

    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(f"--rate is a number of frames per second above 0, but got {rate:g}")
    settings = RunSettings([source], selection, camera, None, fit, calibration, verb="mvde view", floor=floor)
    outputs, camera_topic = (
        _Outputs(port, rrd, point_step, _settings_of(scan)),
        only(topic or [], "--topic", "mvde view shows one camera"),
    )
    has_own_rate = is_live(source) or is_log(Path(source))
    if rate is not None and has_own_rate:
        raise UsageError("--rate would have no effect: live sources and logs come at their own rate")
    if topic and not is_log(Path(source)):
        raise UsageError(f"--topic would have no effect: {source} is no log")
    if is_live(source):
        return _view_live(settings, live, outputs)
    live.check_unused()
    if is_log(Path(source)):
        return _view_log(settings, camera_topic, outputs)
    _view_files(settings, rate, outputs)


@dataclass(frozen=True)
class _Outputs:
    """Where frames go: a server on ``port``, by default only without a recording, and the recording ``rrd``.

    ``point_step`` asks for points, which are shown with a step of their own where there are any. ``scan`` are the
    settings of distances by bearing. ``floors`` counts what the floor gave the frames.
    """

    port: int | None
    rrd: Path | None
    point_step: int | None
    scan: ScanSettings | None
    floors: FloorCounts = field(default_factory=FloorCounts)

    def open(self, stack: ExitStack) -> tuple[FoxgloveServer | None, list[Viewer]]:
        """Open the viewers, which ``stack`` closes; also the server among them."""
        from mvde.robot.viewed import POINT_STEP

        step = POINT_STEP if self.point_step is None else self.point_step
        server: FoxgloveServer | None = None
        viewers: list[Viewer] = []
        if self.port is not None or self.rrd is None:
            from mvde.robot.foxglove_server import PORT, FoxgloveServer

            server = FoxgloveServer(PORT if self.port is None else self.port, step)
            viewers.append(server)
            stack.callback(server.close)
        if self.rrd is not None:
            from mvde.robot.rerun_recording import RerunRecording

            viewers.append(RerunRecording(self.rrd, step))
            stack.callback(viewers[-1].close)
        return server, viewers

    def checked(self, frames: Iterator[Viewed]) -> Iterator[Viewed]:
        """Yield the frames; raise :class:`UsageError` for points that were asked for and cannot be had."""
        for number, viewed in enumerate(frames):
            if number == 0 and self.point_step is not None:
                viewed.check_points()
            self.floors.add(viewed.result)
            yield viewed


def _settings_of(scan: Path | None) -> ScanSettings | None:
    """Settings of a scan from their file, read before anything is opened."""
    from mvde.runtime.scan_settings import ScanSettings

    return None if scan is None else ScanSettings.from_file(scan)


def _view_live(settings: RunSettings, live: LiveOptions, outputs: _Outputs) -> None:
    from mvde.cli.run_live import check_any, counts_text, open_live
    from mvde.cli.view_sources import live_frames
    from mvde.robot.newest import LiveCounts

    counts, mounting = LiveCounts(), settings.floor.given()
    stream = open_live(settings.inputs, live)
    with ExitStack() as stack:
        stack.enter_context(stream).wait()
        server, viewers = outputs.open(stack)
        runtime = stack.enter_context(settings.load(scan=outputs.scan, floor=mounting))
        _say_where(server, "")
        try:
            _show(outputs.checked(live_frames(runtime, stream, counts, live, settings.fit)), viewers)
        finally:
            say(f"{counts.num_inferred} frames of {stream.address.shown}; {counts_text(counts, stream)}")
            outputs.floors.tell()
        check_any(counts, stream, live)
    _say_recording(outputs)


def _view_files(settings: RunSettings, rate: float | None, outputs: _Outputs) -> None:
    from mvde.cli.run_frames import Skipped
    from mvde.cli.view_sources import file_frames, rate_of
    from mvde.runtime.sources import expand_inputs

    paths, mounting = expand_inputs(settings.inputs), settings.floor.given()
    skipped = Skipped(len(paths))
    with ExitStack() as stack:
        server, viewers = outputs.open(stack)
        runtime = stack.enter_context(settings.load(scan=outputs.scan, floor=mounting))
        frames = file_frames(runtime, paths, rate or rate_of(paths), settings.fit, skipped.add)
        _play(outputs.checked(frames), server, viewers, (outputs.floors.tell, skipped.check))
    _say_recording(outputs)


def _view_log(settings: RunSettings, topic: str | None, outputs: _Outputs) -> None:
    from mvde.cli.view_sources import LONGEST_GAP_S, log_frames
    from mvde.robot.camera_topics import camera_topics
    from mvde.robot.depth_log import Problems
    from mvde.robot.logs import open_log

    problems = Problems(lambda text: say(f"passed over: {text}", sys.stderr))
    reader = open_log(Path(settings.inputs[0]))
    with ExitStack() as stack:
        stack.callback(reader.close)
        (camera,) = camera_topics(reader, [] if topic is None else [topic], problems.add)
        floor, mounting = log_floor(settings.floor, reader), settings.floor.given_beside_log()
        server, viewers = outputs.open(stack)
        runtime = stack.enter_context(settings.open(scan=outputs.scan, floor=mounting))
        frames = log_frames(runtime, reader, camera, settings, problems, floor)
        after = (outputs.floors.tell, partial(say_tilt, floor), problems.check)
        _play(outputs.checked(frames), server, viewers, after, LONGEST_GAP_S)
    _say_recording(outputs)


def _play(
    frames: Iterator[Viewed],
    server: FoxgloveServer | None,
    viewers: list[Viewer],
    after: Sequence[Callable[[], None]],
    longest_gap_s: float = math.inf,
) -> None:
    """Show recorded frames: at their pace to the server's viewers, who keep the last one until Ctrl-C.

    ``after`` are called once all were shown: they say what became of the frames, and raise what went wrong with some.
    """
    from mvde.cli.view_sources import paced

    if server is not None:
        frames = paced(_from_first_viewer(frames, server), longest_gap_s)
    last = _show(frames, viewers)
    for call in after:
        call()
    if last is None:
        raise ImageError("there is no picture in it")
    if server is not None:
        _hold(server, last)


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
