"""``mvde run`` on images and videos: millimetres, a visualisation and patch statistics of each frame."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.cli.on_time import say_on_time
from mvde.cli.run_floor import FloorCounts
from mvde.cli.run_settings import RunSettings
from mvde.cli.terminal import console, say
from mvde.errors import ImageError
from mvde.runtime.placement import Fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.result import DepthResult
    from mvde.runtime.sources import Frame
    from mvde.runtime.stabilize import Stabilization

_DEFAULT_OUT = Path("depth")
_MOST_NAMES = 10
"""Number of skipped inputs named in the summary; each was reported on its own line."""


def run_frames(settings: RunSettings) -> None:
    """Write the three files of each frame; raise :class:`ImageError` at the end if any input was skipped."""
    from mvde.runtime.sources import count_frames, expand_inputs

    out = settings.out or _DEFAULT_OUT
    paths = expand_inputs(settings.inputs)
    with settings.load(floor=settings.floor.given()) as runtime:
        total_ms, num_frames, skipped, floors = 0.0, 0, Skipped(len(paths)), FloorCounts()
        results = results_of(runtime, paths, settings.fit, skipped.add, settings.stabilization)
        for frame, result in _progress(results, count_frames(paths)):
            write_frame(out, frame, result, runtime)
            floors.add(result)
            total_ms, num_frames = total_ms + result.timings.total_ms, num_frames + 1
    if num_frames:
        say(f"{num_frames} frame{'s' if num_frames > 1 else ''} in {out}/, {total_ms / num_frames:.1f} ms each")
        say_on_time(runtime)
        floors.tell()
    skipped.check()


class Skipped:
    """Inputs that could not be read completely, reported on stderr as they occur."""

    def __init__(self, num_inputs: int) -> None:
        self._num_inputs = num_inputs
        self._errors: list[tuple[Path, ImageError]] = []

    def add(self, path: Path, error: ImageError) -> None:
        """Record and report an input's error; for a single input, :meth:`check` raises it instead."""
        self._errors.append((path, error))
        if self._num_inputs > 1:
            say(f"skipped: {error}", sys.stderr)

    def check(self) -> None:
        """Raise :class:`ImageError` if any input was skipped."""
        if not self._errors:
            return
        if self._num_inputs == 1:
            raise self._errors[0][1]
        names = [str(path) for path, _ in self._errors]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        raise ImageError(
            f"{len(names)} of {self._num_inputs} inputs could not be read completely: "
            f"{', '.join(names[:_MOST_NAMES])}{more}; all other results were written"
        )


def results_of(
    runtime: DepthRuntime,
    paths: list[Path],
    fit: Fit | None,
    on_error: Callable[[Path, ImageError], None],
    stabilize: Stabilization | None = None,
) -> Iterator[tuple[Frame, DepthResult]]:
    """Iterate over frames and results; each video, and pictures in a row, are steady in themselves."""
    from itertools import groupby

    from mvde.runtime.sources import read_frames

    frames = read_frames(paths, on_error)
    if stabilize is None:
        yield from _streamed(runtime, frames, fit, None)
        return
    for _, film in groupby(frames, key=lambda frame: frame.video):
        yield from _streamed(runtime, film, fit, stabilize)


def _streamed(
    runtime: DepthRuntime, frames: Iterator[Frame], fit: Fit | None, stabilize: Stabilization | None
) -> Iterator[tuple[Frame, DepthResult]]:
    """Iterate over frames and results of one stream, queueing the frames in flight."""
    from collections import deque

    waiting: deque[Frame] = deque()

    def images() -> Iterator[NDArray[np.uint8]]:
        for frame in frames:
            waiting.append(frame)
            yield frame.image

    for result in runtime.stream(images(), fit, stabilize=stabilize):
        yield waiting.popleft(), result


def _progress(results: Iterator[tuple[Frame, DepthResult]], total: int | None) -> Iterator[tuple[Frame, DepthResult]]:
    from rich.progress import track

    yield from track(results, description="depth", total=total, console=console(stderr=True), disable=total == 1)


def write_frame(folder: Path, frame: Frame, result: DepthResult, runtime: DepthRuntime) -> None:
    """Write the three files of a frame atomically."""
    import numpy as np
    from PIL import Image

    from mvde.files import atomic_write
    from mvde.runtime.render import depth_picture

    if result.unit != "m":  # millimetres would be wrong
        with atomic_write(folder / f"{frame.stem}.depth.npy") as path:
            np.save(path, result.depth)
    else:
        with atomic_write(folder / f"{frame.stem}.depth.png") as path:
            Image.fromarray(result.millimetres()).save(path)
    with atomic_write(folder / f"{frame.stem}.depth.jpg") as path:
        depth_picture(result.depth, result.depth_kind).save(path, quality=92)
    with atomic_write(folder / f"{frame.stem}.stats.npz") as path:
        np.savez_compressed(
            path,
            stats=result.stats,
            columns=np.array(result.stat_names),
            grid=np.array(result.grid),
            patch_size=result.placement.target_size[0] // result.grid[0],
            resolution=np.array(result.placement.target_size),
            engine=runtime.info.id,
            depth_kind=str(result.depth_kind),
            camera_factor=result.camera_factor,
            camera_assumed=result.camera_assumed,
            calibrated=result.calibrated or "",
            num_steady=result.num_steady or 0,
            floor=str(result.floors[0].status) if result.floors else "",
            floor_scale=result.floors[0].scale if result.floors else 1.0,
        )
