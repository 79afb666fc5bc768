"""``mvde run`` on a robot's log: a log of depth, with the stamps and frames of its pictures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvde import __version__
from mvde.cli.log_options import LogOptions
from mvde.cli.on_time import resolutions_text, say_on_time
from mvde.cli.run_floor import FloorCounts, log_floor, say_tilt
from mvde.cli.run_settings import RunSettings, say_camera
from mvde.cli.terminal import console, say
from mvde.errors import LogError, UsageError

if TYPE_CHECKING:
    from mvde.robot.camera_topics import CameraTopic
    from mvde.robot.depth_log import LogFloor, Problems
    from mvde.robot.logs import LogReader, LogWriter
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.result import DepthResult

_DEFAULT_OUT = Path("depth")


def run_log(settings: RunSettings, options: LogOptions) -> None:
    """Write a log of depth; raise :class:`LogError` at the end if something of the log was passed over."""
    from mvde.robot.camera_topics import camera_topics
    from mvde.robot.depth_log import Problems
    from mvde.robot.logs import new_log, open_log

    source = _only_log(settings.inputs)
    out = settings.out or _DEFAULT_OUT / source.with_suffix(".mcap" if source.is_file() else "").name
    _check_other(source, out)
    reader = open_log(source)
    problems = Problems(lambda text: say(f"passed over: {text}", sys.stderr))
    try:
        cameras = camera_topics(reader, options.topic, problems.add)
        floor = log_floor(settings.floor, reader)
        with settings.open(scan=options.scan, floor=settings.floor.given_beside_log()) as runtime:
            _say_cameras(reader, cameras, settings, runtime)
            with new_log(out, source) as writer:
                num_frames = _write(reader, writer, cameras, runtime, settings, options, problems, floor)
            say_on_time(runtime)
    finally:
        reader.close()
    say(f"{num_frames} frame{'s' if num_frames > 1 else ''} in {out}")
    problems.check()


def _write(
    reader: LogReader,
    writer: LogWriter,
    cameras: Sequence[CameraTopic],
    runtime: DepthRuntime,
    settings: RunSettings,
    options: LogOptions,
    problems: Problems,
    floor: LogFloor | None,
) -> int:
    """Write all frames with a progress bar and return their number."""
    from mvde.robot.depth_log import write_depth_log
    from mvde.robot.depth_topics import LogOutputs

    outputs = LogOutputs(options.depth_encoding, options.point_step, options.copy_topics)
    results = write_depth_log(
        reader,
        writer,
        cameras,
        runtime,
        outputs,
        problems,
        fit=settings.fit,
        camera=settings.camera.frame_camera,
        stabilize=settings.stabilization,
        floor=floor,
    )
    num_frames, last, floors = 0, None, FloorCounts()
    for result in _progress(results, cameras):
        num_frames, last = num_frames + 1, result
        floors.add(result)
    if last is None:
        problems.check()
        raise LogError(f"{', '.join(camera.name for camera in cameras)}: there is no picture in the log")
    writer.describe(_facts(runtime, last))
    floors.tell()
    say_tilt(floor)
    return num_frames


def _only_log(inputs: Sequence[str]) -> Path:
    if len(inputs) > 1:
        raise UsageError(f"mvde run takes one log at a time, but got {len(inputs)} inputs: {', '.join(inputs)}")
    return Path(inputs[0])


def _check_other(source: Path, out: Path) -> None:
    """Raise :class:`UsageError` if the output is the input, or within it."""
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise UsageError(f"--out {out} would write into the log that is read, {source}; give another name")


def _say_cameras(
    reader: LogReader, cameras: Sequence[CameraTopic], settings: RunSettings, runtime: DepthRuntime
) -> None:
    """Say of each camera what is read and where its intrinsics come from."""
    from mvde.robot.camera_info import frame_camera
    from mvde.robot.camera_topics import first_infos

    is_given = settings.camera.frame_camera is not None
    infos = {} if is_given else first_infos(reader, cameras)
    for camera in cameras:
        message = next((infos[topic.name] for topic in camera.infos if topic.name in infos), None)
        known = None
        if message is not None:
            with contextlib.suppress(UsageError):  # reported when the pictures are read
                known = frame_camera(message, camera.is_rectified)
        count = camera.num_messages
        pictures = f"{camera.name}: {'' if count is None else f'{count} '}pictures"
        if known is None or message is None:
            say(f"{pictures}, {'camera as given' if is_given else 'without CameraInfo'}")
            say_camera(runtime, is_given=is_given)
        else:
            state = "rectified" if known.is_rectified else f"distorted ({message.distortion_model})"
            say(
                f"{pictures}, {state}, camera of {camera.infos[0].name}: fx {known.camera.fx:g}, fy {known.camera.fy:g}"
            )


def _progress(results: Iterator[DepthResult], cameras: Sequence[CameraTopic]) -> Iterator[DepthResult]:
    from rich.progress import track

    counts = [camera.num_messages for camera in cameras]
    total = None if None in counts else sum(count for count in counts if count is not None)
    yield from track(results, description="depth", total=total, console=console(stderr=True))


def _facts(runtime: DepthRuntime, result: DepthResult) -> dict[str, str]:
    """What the depth of the log is, as text."""
    info, placement = runtime.info, result.placement
    return {
        "version": __version__,
        "model": runtime.manifest.name,
        "engine": str(info.id),
        "resolution": resolutions_text(runtime),
        "depth_kind": str(result.depth_kind),
        "unit": result.unit,
        "camera_assumed": str(result.camera_assumed).lower(),
        "calibrated": result.calibrated or "",
        "statistics": ",".join(result.stat_names),
        "scale_from_floor": str(bool(result.floors)).lower(),
        "stabilized": str(result.num_steady is not None).lower(),
        "frame_box": ",".join(
            map(str, (placement.source_box.left, placement.source_box.top, *placement.source_box.size[::-1]))
        ),
    }
