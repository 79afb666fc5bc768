"""Resize moved behind operators that shrink its input, and freed of axes of length one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def _resized(
    graph: Any, value: str, before: tuple[int, ...], after: tuple[int, ...], by_scale: bool, **how: Any
) -> str:
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", **how}
    if by_scale:
        scales = np.asarray([new / old for new, old in zip(after, before, strict=True)], np.float32)
        return str(graph.node("Resize", value, "", graph.constant(scales), **attributes))
    return str(graph.node("Resize", value, "", "", graph.constant(np.asarray(after)), **attributes))


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 3), rows=st.integers(1, 5), columns=st.integers(1, 5), factor=st.integers(1, 3),
    by_scale=st.booleans(), negative=st.booleans(), mode=st.sampled_from(["half_pixel", "asymmetric"]),
)  # fmt: skip
def test_one_channel_is_squeezed_before(
    build: Callable, fold: Callable, batch: int, rows: int, columns: int, factor: int, by_scale: bool, negative: bool,
    mode: str,
) -> None:  # fmt: skip
    before, after = (batch, 1, rows, columns), (batch, 1, rows * factor, columns * 2)
    graph = build(0, before)
    large = _resized(graph, "x", before, after, by_scale, coordinate_transformation_mode=mode)
    model = graph.model(graph.node("Squeeze", large, graph.constant([-3 if negative else 1])))
    ops, count = fold(model, "squeeze-before-resize")
    assert count == 1
    assert ops == ["Squeeze", "Resize"]


def test_several_channels_are_not_squeezed(build: Callable, fold: Callable) -> None:
    graph = build(0, (1, 2, 3, 4))
    large = _resized(graph, "x", (1, 2, 3, 4), (1, 2, 6, 8), False)
    model = graph.model(graph.node("Squeeze", large, graph.constant([0])))
    assert fold(model, "squeeze-before-resize")[1] == 0


def _pointwise_after(
    build: Callable, seed: int, channels: tuple[int, int], size: tuple[int, int], factor: int, by_scale: bool,
    with_bias: bool = True, **how: Any,
) -> Any:  # fmt: skip
    before = (2, channels[0], *size)
    graph = build(seed, before)
    large = _resized(graph, "x", before, (*before[:2], size[0] * factor, size[1] * factor), by_scale, **how)
    operands = [graph.random(channels[1], channels[0], 1, 1)] + ([graph.random(channels[1])] if with_bias else [])
    return graph.model(graph.node("Conv", large, *operands))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), channels=st.sampled_from([(3, 3), (4, 1), (5, 2)]), factor=st.integers(2, 4),
    by_scale=st.booleans(), with_bias=st.booleans(), size=st.sampled_from([(3, 4), (1, 5)]),
    mode=st.sampled_from(["half_pixel", "align_corners", "asymmetric"]),
)  # fmt: skip
def test_a_pointwise_convolution_goes_in_front(
    build: Callable, fold: Callable, seed: int, channels: tuple[int, int], factor: int, by_scale: bool, with_bias: bool,
    size: tuple[int, int], mode: str,
) -> None:  # fmt: skip
    model = _pointwise_after(
        build, seed, channels, size, factor, by_scale, with_bias, coordinate_transformation_mode=mode
    )
    ops, count = fold(model, "conv-before-resize")
    assert count == 1
    assert ops == ["Conv", "Resize"]


@pytest.mark.parametrize(
    ("channels", "factor", "how"),
    [((2, 3), 2, {}), ((3, 3), 1, {}), ((3, 3), 2, {"mode": "nearest"}), ((3, 3), 2, {"antialias": 1})],
    ids=["more channels behind", "no enlargement", "nearest", "antialiased"],
)
def test_a_convolution_stays_where_moving_it_does_not_save_or_is_not_exact(
    build: Callable, fold: Callable, channels: tuple[int, int], factor: int, how: dict[str, Any]
) -> None:
    model = _pointwise_after(build, 0, channels, (3, 4), factor, by_scale=False, **how)
    assert fold(model, "conv-before-resize")[1] == 0
