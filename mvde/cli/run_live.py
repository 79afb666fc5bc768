"""``mvde run`` on a live source: the files of each frame that was inferred, newest frame first, and their times."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.cli.live_options import LiveOptions
from mvde.cli.on_time import say_on_time
from mvde.cli.run_floor import FloorCounts
from mvde.cli.run_settings import RunSettings
from mvde.cli.terminal import say
from mvde.errors import ImageError, UsageError

if TYPE_CHECKING:
    from mvde.robot.live import LiveStream
    from mvde.robot.newest import LiveCounts, LiveResult

_DEFAULT_OUT = Path("depth")


def run_live(settings: RunSettings, live: LiveOptions) -> None:
    """Write the files of each frame, and a line of STEM.frames.jsonl, until the stream ends.

    Raises :class:`UsageError` for several inputs, :class:`ImageError` for a source that cannot be opened or stops;
    what was written until then stays.
    """
    from mvde.cli.run_frames import write_frame
    from mvde.robot.newest import LiveCounts, newest_first
    from mvde.runtime.sources import Frame

    mounting, stream = settings.floor.given(), open_live(settings.inputs, live)
    out, counts, floors = settings.out or _DEFAULT_OUT, LiveCounts(), FloorCounts()
    stem = f"{stream.address.stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    with ExitStack() as stack:
        stack.enter_context(stream).wait()
        runtime = stack.enter_context(settings.load(floor=mounting))
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{stem}.frames.jsonl"
        try:
            with path.open("x", encoding="utf-8") as times:
                results = newest_first(runtime, stream, counts, live.budget_ms, settings.fit, settings.stabilization)
                for done in _progress(islice(results, live.stop_after)):
                    name = f"{stem}-{done.frame.index:06d}"
                    write_frame(out, Frame(name, done.frame.image), done.result, runtime)
                    floors.add(done.result)
                    times.write(_times(name, done) + "\n")
                    times.flush()
        finally:
            if counts.num_inferred:
                say(f"{_frames(counts.num_inferred)} in {out}/, times in {path.name}; {counts_text(counts, stream)}")
                say_on_time(runtime)
                floors.tell()
            else:
                path.unlink(missing_ok=True)
    check_any(counts, stream, live)


def open_live(inputs: Iterable[str], live: LiveOptions) -> LiveStream:
    """Begin to read the only one of ``inputs``; raises :class:`UsageError` for several."""
    from mvde.robot.live import LiveStream
    from mvde.robot.live_address import parse_capture_options, parse_live

    source, *others = inputs
    if others:
        raise UsageError(
            f"a live source never ends, so it is the only input, but {1 + len(others)} were given; run one process each"
        )
    address = parse_live(source)
    return LiveStream(address, live.timeout_s, parse_capture_options(live.capture_option, address.kind))


def counts_text(counts: LiveCounts, stream: LiveStream) -> str:
    """What became of the frames of the stream, for a summary."""
    parts = [f"{stream.num_received} received", f"{counts.num_passed_over} passed over for newer ones"]
    if counts.num_late:
        parts.append(f"{counts.num_late} late")
    if counts.num_too_old:
        parts.append(f"{counts.num_too_old} given up as older than the budget")
    if stream.num_damaged:
        parts.append(f"{stream.num_damaged} damaged")
    return ", ".join(parts)


def check_any(counts: LiveCounts, stream: LiveStream, live: LiveOptions) -> None:
    """Raise :class:`ImageError` if a stream that ended gave no result, with the reason."""
    if counts.num_inferred:
        return
    if counts.num_too_old:
        raise ImageError(
            f"each of the {counts.num_too_old} frames of {stream.address.shown} was older than --budget "
            f"{live.budget_ms:g} before its turn; give a larger one"
        )
    raise ImageError(f"{stream.address.shown} ended without a frame; {stream.num_damaged} were damaged")


def _times(name: str, done: LiveResult) -> str:
    return json.dumps({
        "name": name,
        "received": done.frame.received_ns / 1e9,
        "age_ms": round(done.age_ms, 3),
        "is_late": done.is_late,
        "resolution": done.result.placement.target_size,
    })  # fmt: skip


def _progress(results: Iterator[LiveResult]) -> Iterator[LiveResult]:
    from rich.progress import track

    from mvde.cli.terminal import console

    yield from track(results, description="depth", total=None, console=console(stderr=True))


def _frames(count: int) -> str:
    return f"{count} frame{'s' if count != 1 else ''}"
