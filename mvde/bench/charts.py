"""HTML charts with a little inline SVG.

Positions are percentages, so that charts fit any screen width and their text stays readable on a small one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_NUM_BINS = 160
_SMOOTHING = 2.0  # bins: joins neighbours without hiding a second peak
_MAX_DOTS = 600
_UNSCALED = 'vector-effect="non-scaling-stroke"'
_LOG_FROM = 6.0  # wider ratios use a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """Mapping of values from ``low`` to ``high`` onto 0 to 100 %, linear or logarithmic."""

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], *, from_zero: bool = False) -> Axis:
        """Axis with a margin around the values; logarithmic if they span a wide range."""
        low, high = min(values), max(values)
        if from_zero:
            return cls(0.0, high * 1.06 or 1.0)
        if low > 0 and high / low > _LOG_FROM:
            return cls(low / 1.15, high * 1.15, is_log=True)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(max(low - room, 0.0) if low >= 0 else low - room, high + room)

    def with_room_for_text(self) -> Axis:
        """Copy of the axis extended by a seventh at its upper end."""
        if self.is_log:
            return Axis(self.low, self.high * (self.high / self.low) ** (1 / 7), is_log=True)
        return Axis(self.low, self.high + (self.high - self.low) / 7)

    def position(self, value: float) -> float:
        """Position of a value in per cent, clamped to the axis."""
        if self.is_log:
            share = math.log(max(value, 1e-12) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return 100 * min(max(share, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """Four to nine round values within the axis."""
        return self._log_ticks() if self.is_log else self._linear_ticks(7)

    def _linear_ticks(self, wanted: int) -> list[float]:
        raw = (self.high - self.low) / wanted
        power = 10 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1,)):
            found = [factor * 10.0**decade for decade in decades for factor in factors]
            found = [tick for tick in found if self.low <= tick <= self.high]
            if len(found) <= 8:
                return found
        return found


def axis(scale: Axis, title: str) -> str:
    """Axis under a chart: ticks with their values, and a title with the unit."""
    ticks = "".join(
        f'<span class="tick" style="left:{scale.position(tick):.2f}%">{number(tick)}</span>' for tick in scale.ticks()
    )
    return f'<div class="axis"><div class="ticks">{ticks}</div><div class="axis-title">{escape(title)}</div></div>'


def grid(scale: Axis) -> str:
    """Thin grid lines at the ticks, behind a chart."""
    lines = "".join(f'<i style="left:{scale.position(tick):.2f}%"></i>' for tick in scale.ticks())
    return f'<div class="grid">{lines}</div>'


def density(times: Sequence[float], scale: Axis, colour: str) -> str:
    """Histogram area of the times; leaves room for the marks' labels above its peak."""
    positions = np.array([scale.position(time) for time in times])
    counts, _ = np.histogram(positions, bins=_NUM_BINS, range=(0, 100))
    reach = np.arange(-8, 9)
    kernel = np.exp(-((reach / _SMOOTHING) ** 2) / 2)
    smooth = np.convolve(counts, kernel / kernel.sum(), mode="same")
    height = 70 * smooth / smooth.max()
    x = (np.arange(_NUM_BINS) + 0.5) * 100 / _NUM_BINS
    points = " ".join(f"{px:.2f},{100 - py:.1f}" for px, py in zip(x, height, strict=True))
    return (
        '<svg class="shape" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="0,100 {points} 100,100" fill="{colour}" fill-opacity="0.22"/>'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6" {_UNSCALED}/>'
        "</svg>"
    )


def mark(scale: Axis, value: float, text: str, kind: str, side: str) -> str:
    """Vertical line at a value, labelled on ``side`` (``"left"`` or ``"right"``), or opposite near the chart's end."""
    position = scale.position(value)
    if position < 26 or position > 88:
        side = "right" if position < 26 else "left"
    if side == "right" and position > 74:
        side = "right end"  # a small screen has no room for the label here
    return f'<div class="mark {kind} {side}" style="left:{position:.2f}%"><span>{escape(text)}</span></div>'


def dots(times: Sequence[float], scale: Axis, colour: str) -> str:
    """One dot per frame, from left to right; many frames are grouped, each group shown by its slowest."""
    values = np.asarray(times, float)
    group = -(-len(values) // _MAX_DOTS)
    padded = np.pad(values, (0, -len(values) % group), mode="edge").reshape(-1, group).max(axis=1)
    step = 100 / len(padded)
    path = "".join(
        f"M{(index + 0.5) * step:.2f} {100 - scale.position(value):.2f}h0" for index, value in enumerate(padded)
    )
    width_px = 6 if len(padded) < 100 else 3.2
    return (
        '<svg class="shape" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}" stroke="{colour}" stroke-width="{width_px}" stroke-linecap="round" stroke-opacity="0.7" '
        f'fill="none" {_UNSCALED}/></svg>'
    )


def stacked_bar(parts: Sequence[tuple[str, float, str]], scale: Axis) -> str:
    """Stacked bar of parts (class, value, label); a label is shown if its part is wide enough."""
    pieces = []
    for kind, value, text in parts:
        width = scale.position(value)
        label = f"<span>{escape(text)}</span>" if width > 9 else ""
        size = "narrow" if width < 35 else ""
        pieces.append(
            f'<div class="part {kind} {size}" style="width:{width:.2f}%" title="{escape(text)}">{label}</div>'
        )
    return f'<div class="stack">{"".join(pieces)}</div>'


def gauge(share: float, colour: str, text: str) -> str:
    """Bar filled to a fraction of its length (1: full), followed by a label."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<div class="gauge"><div class="fill" style="width:{width:.1f}%;background:{colour}"></div></div>'
        f'<div class="gauge-text">{escape(text)}</div>'
    )


@dataclass(frozen=True)
class Point:
    """Named point of a scatter chart."""

    x: float
    y: float
    name: str
    colour: str


def scatter(points: Sequence[Point], x: Axis, y: Axis, x_title: str, y_title: str) -> str:
    """Scatter chart of labelled points.

    Each label is on the first of four sides where it overlaps no other; small screens show a legend instead.
    """
    placed: list[tuple[float, float, float, float]] = []
    marks = []
    for point in sorted(points, key=lambda one: (one.y, one.x)):
        left, bottom = x.position(point.x), y.position(point.y)
        side = _free_side(left, bottom, len(point.name), placed)
        marks.append(
            f'<div class="point {side}" style="left:{left:.2f}%;bottom:{bottom:.2f}%">'
            f'<i style="background:{point.colour}"></i><span>{escape(point.name)}</span></div>'
        )
    rows = "".join(
        f'<span class="tick" style="bottom:{y.position(tick):.2f}%">{number(tick)}</span>' for tick in y.ticks()
    )
    lines = "".join(f'<i class="row" style="bottom:{y.position(tick):.2f}%"></i>' for tick in y.ticks())
    names = "".join(
        f'<span><i class="swatch" style="background:{one.colour}"></i>{escape(one.name)}</span>' for one in points
    )
    y_axis = f'<div class="y-title">{escape(y_title)}</div><div class="y-ticks">{rows}</div>'
    plot = f'<div class="plot">{grid(x)}{lines}{"".join(marks)}</div>'
    return f'<div class="legend names">{names}</div><div class="scatter">{y_axis}{plot}{axis(x, x_title)}</div>'


def _free_side(left: float, bottom: float, length: int, placed: list[tuple[float, float, float, float]]) -> str:
    """Label side of a point (in per cent of the chart) for a name of ``length`` letters; records it in ``placed``."""
    width, height = 1.1 * length, 7.0
    boxes = {
        "right": (left + 1, bottom - height / 2),
        "left": (left - 1 - width, bottom - height / 2),
        "above": (left - width / 2, bottom + 2),
        "below": (left - width / 2, bottom - 2 - height),
    }
    for side, (x, y) in boxes.items():
        box = (x, y, x + width, y + height)
        inside = x >= 0 and x + width <= 100 and y >= 0 and y + height <= 100
        if inside and not any(_overlap(box, other) for other in placed):
            placed.append(box)
            return side
    return "left" if left > 50 else "right"


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def interval(ratio: float, low: float, high: float, scale: Axis, colour: str) -> str:
    """Ratio as a dot, its interval as a line, and a line at 1."""
    left, right = scale.position(low), scale.position(high)
    return (
        f'<i class="unity" style="left:{scale.position(1):.2f}%"></i>'
        f'<i class="span" style="left:{left:.2f}%;width:{right - left:.2f}%;background:{colour}"></i>'
        f'<i class="dot" style="left:{scale.position(ratio):.2f}%;background:{colour}"></i>'
    )


def number(value: float) -> str:
    """Compact decimal form: ``"0.25"``, ``"5"``, ``"1500"``."""
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.2g}"
