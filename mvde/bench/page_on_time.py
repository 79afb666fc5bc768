"""Section of the HTML report on engines with a deadline: resolution over time, under a load that comes and goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from mvde.bench.report import milliseconds, on_time_title

if TYPE_CHECKING:
    from mvde.bench.on_time import OnTimeRun

_UNSCALED = 'vector-effect="non-scaling-stroke"'


def on_time_section(runs: Sequence[OnTimeRun]) -> str:
    """HTML of the section; empty without runs."""
    if not runs:
        return ""
    heights = sorted({one.resolution[0] for run in runs for one in run.frames})
    body = []
    for run in runs:
        note = (
            f"{run.num_late} of {len(run.frames)} late, {run.num_dropped} dropped; age of result: median "
            f"{milliseconds(run.age.p50_ms)}, p99 {milliseconds(run.age.p99_ms)}"
        )
        body.append(f'<div class="name">{escape(run.name)}<small>{escape(note)}</small></div>')
        body.append(f'<div class="plot run">{_ticks(heights)}{_picture(run, heights)}</div>')
    lead = (
        f"Height of the network's input over time, {on_time_title(runs)}. The load, one busy process per CPU, is on "
        "where the ground is grey; dots are late results."
    )
    rows = f'<div class="rows">{"".join(body)}</div>'
    return f'<section><h2>On time</h2><p class="lead">{escape(lead)}</p>{rows}</section>\n'


def _position(height: int, heights: Sequence[int]) -> float:
    """Per cent from the bottom: levels are evenly spaced."""
    return 100 * (heights.index(height) + 0.5) / len(heights)


def _ticks(heights: Sequence[int]) -> str:
    return "".join(
        f'<span class="tick" style="bottom:{_position(height, heights):.1f}%">{height}</span>' for height in heights
    )


def _picture(run: OnTimeRun, heights: Sequence[int]) -> str:
    """Grey ground under load, the line of the resolution, and dots at late results."""
    longest = max(one.captured_s for one in run.frames) or 1.0
    points = [(100 * one.captured_s / longest, 100 - _position(one.resolution[0], heights)) for one in run.frames]
    line = f"M{points[0][0]:.2f} {points[0][1]:.1f}" + "".join(f"H{x:.2f}V{y:.1f}" for x, y in points[1:])
    late = "".join(
        f"M{x:.2f} {y:.1f}h0" for (x, y), one in zip(points, run.frames, strict=True) if one.age_ms > run.deadline_ms
    )
    ground = "".join(
        f'<rect x="{100 * first / longest:.2f}" y="0" width="{100 * (last - first) / longest:.2f}" height="100" '
        'fill="var(--soft)" fill-opacity="0.18"/>'
        for first, last in _loads(run)
    )
    return (
        '<svg class="shape" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f'{ground}<path d="{line}" fill="none" stroke="var(--ink)" stroke-width="1.6" {_UNSCALED}/>'
        f'<path d="{late}" stroke="var(--late)" stroke-width="7" stroke-linecap="round" fill="none" {_UNSCALED}/></svg>'
    )


def _loads(run: OnTimeRun) -> Iterator[tuple[float, float]]:
    """First and last capture under load, in seconds, of each time that it was on."""
    for is_loaded, frames in groupby(run.frames, key=lambda one: one.is_loaded):
        if is_loaded:
            times = [one.captured_s for one in frames]
            yield times[0], times[-1]
