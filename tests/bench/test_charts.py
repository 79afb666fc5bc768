"""Chart axes: positions and round tick labels; charts show their data."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mvde.bench import charts
from mvde.bench.charts import Axis, Point


@pytest.mark.parametrize("values", [[3.0, 4.0], [0.0, 1e-4], [250.0, 251.0], [1e5, 3e5], [7.0, 7.0], [0.0, 0.0]])
def test_ticks_are_round_and_lie_inside(values: list[float]) -> None:
    scale = Axis.over(values)
    assert not scale.is_log
    ticks = scale.ticks()
    assert 3 <= len(ticks) <= 9
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    assert all(len(re.sub(r"[-.]|^0\.0*|e.*", "", charts.number(tick)).strip("0")) <= 4 for tick in ticks)
    steps = np.diff(ticks)
    assert steps == pytest.approx([steps[0]] * len(steps))


@pytest.mark.parametrize("values", [[1.0, 10.0], [0.3, 900.0], [20.0, 250.0]])
def test_a_wide_span_is_logarithmic(values: list[float]) -> None:
    scale = Axis.over(values)
    assert scale.is_log
    assert 3 <= len(scale.ticks()) <= 8
    middle = np.sqrt(scale.low * scale.high)
    assert scale.position(middle) == pytest.approx(50)


def test_positions_are_per_cent_of_the_axis() -> None:
    scale = Axis(10.0, 30.0)
    assert [scale.position(value) for value in (10, 15, 30)] == [0, 25, 100]
    assert [scale.position(value) for value in (-5, 99)] == [0, 100], "values outside are clamped to the ends"
    assert scale.with_room_for_text().position(30) == pytest.approx(87.5)
    assert Axis(1.0, 128.0, is_log=True).with_room_for_text().high == pytest.approx(256)


def test_the_density_peaks_where_the_times_are() -> None:
    rng = np.random.default_rng(0)
    times = np.concatenate([20 + 0.2 * rng.standard_normal(300), 40 + 0.2 * rng.standard_normal(100)])
    svg = charts.density(times.tolist(), Axis(0.0, 50.0), "#123456")
    points = np.array([pair.split(",") for pair in re.findall(r'polyline points="([^"]+)"', svg)[0].split()], float)
    heights = 100 - points[:, 1]
    assert points[heights.argmax(), 0] == pytest.approx(40, abs=1)
    second = heights[np.abs(points[:, 0] - 80) < 2].max()
    assert second == pytest.approx(heights.max() / 3, rel=0.3)


def test_of_many_frames_the_slowest_is_never_hidden() -> None:
    times = [10.0] * 5000
    times[3210] = 90.0
    svg = charts.dots(times, Axis(0.0, 100.0), "#123456")
    heights = [100 - float(text) for text in re.findall(r"M[\d.]+ ([\d.]+)h0", svg)]
    assert 300 <= len(heights) <= 600
    assert max(heights) == pytest.approx(90, abs=0.1)


def test_names_of_near_points_do_not_cover_each_other() -> None:
    points = [Point(10, 0.25, "openvino:fp32", "red"), Point(10, 0.2501, "onnxruntime:fp32", "blue")]
    html = charts.scatter(points, Axis(0, 40), Axis(0.2, 0.3), "ms", "AbsRel")
    sides = re.findall(r'class="point (\w+)"', html)
    assert len(set(sides)) == 2


def test_text_is_escaped() -> None:
    html = charts.mark(Axis(0, 1), 0.5, "<script>", "", "left") + charts.axis(Axis(0, 1), "a & b")
    assert "<script>" not in html
    assert "a &amp; b" in html
