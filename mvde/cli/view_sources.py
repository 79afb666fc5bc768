"""Frames for ``mvde view``: of files at their pace, of live sources as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.errors import ImageError
from mvde.robot.viewed import Viewed

if TYPE_CHECKING:
    from mvde.cli.live_options import LiveOptions
    from mvde.cli.run_settings import RunSettings
    from mvde.robot.camera_topics import CameraTopic
    from mvde.robot.depth_log import LogFloor, Problems
    from mvde.robot.live import LiveStream
    from mvde.robot.logs import LogReader
    from mvde.robot.newest import LiveCounts
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.placement import Fit

PICTURES_PER_S = 2.0
"""Rate of pictures that are no video: slow enough to look at each."""


LONGEST_GAP_S = 3.0
"""Longest wait between two frames of a log."""


def live_frames(
    runtime: DepthRuntime, stream: LiveStream, counts: LiveCounts, live: LiveOptions, fit: Fit | None
) -> Iterator[Viewed]:
    """Yield the newest frame of the stream, again and again, with the time at which it was received."""
    from mvde.robot.newest import newest_first

    for done in islice(newest_first(runtime, stream, counts, live.budget_ms, fit), live.stop_after):
        yield Viewed(
            done.frame.index,
            done.frame.image,
            done.result,
            done.frame.received_ns,
            age_ms=done.age_ms,
            is_late=done.is_late,
            num_passed_over=counts.num_passed_over,
            num_late=counts.num_late,
        )


def file_frames(
    runtime: DepthRuntime,
    paths: list[Path],
    rate: float,
    fit: Fit | None,
    on_error: Callable[[Path, ImageError], None],
) -> Iterator[Viewed]:
    """Yield every frame of pictures and videos, with stamps ``rate`` a second from now on."""
    from mvde.cli.run_frames import results_of

    begun_ns = time.time_ns()
    for index, (frame, result) in enumerate(results_of(runtime, paths, fit, on_error)):
        yield Viewed(index, frame.image, result, begun_ns + round(index * 1e9 / rate))


def log_frames(
    runtime: DepthRuntime,
    reader: LogReader,
    camera: CameraTopic,
    settings: RunSettings,
    problems: Problems,
    floor: LogFloor | None = None,
) -> Iterator[Viewed]:
    """Yield every picture of one camera of a log, with the time at which it was recorded."""
    from mvde.robot.depth_log import log_results

    given = settings.camera.frame_camera
    found = log_results(reader, [camera], runtime, problems, fit=settings.fit, camera=given, floor=floor)
    for index, (frame, result) in enumerate(found):
        yield Viewed(index, frame.image, result, frame.log_time_ns)


def rate_of(paths: list[Path]) -> float:
    """Frames per second of the only video; :data:`PICTURES_PER_S` for anything else."""
    from mvde.runtime.video import declared_rate, is_video_path

    if len(paths) == 1 and is_video_path(paths[0]):
        return declared_rate(paths[0]) or PICTURES_PER_S
    return PICTURES_PER_S


def paced(frames: Iterator[Viewed], longest_gap_s: float = math.inf) -> Iterator[Viewed]:
    """Yield each frame when it is due by its stamp, counted from the first; later ones do not catch up by rushing.

    Gaps beyond ``longest_gap_s``, such as those between two drives in one log, are cut short to it.
    """
    ahead_ns = 0
    for number, viewed in enumerate(frames):
        now_ns = time.time_ns()
        if number == 0 or now_ns > viewed.stamp_ns + ahead_ns:
            ahead_ns = now_ns - viewed.stamp_ns
        gap_s = (viewed.stamp_ns + ahead_ns - now_ns) / 1e9
        if gap_s > longest_gap_s:
            ahead_ns -= round((gap_s - longest_gap_s) * 1e9)
        time.sleep(min(gap_s, longest_gap_s))
        yield viewed
