"""A transposed convolution merged with the following convolution, borders included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

RULE = "conv-into-transposed"


def _chain(
    build: Callable, seed: int, stride: int, kernel: int, pad: int, size: tuple[int, int], biases: tuple[bool, bool],
    between: str | None = None, front: bool = True, **second: Any,
) -> Any:  # fmt: skip
    """1x1 convolution, transposed convolution, convolution; ``between`` is an operator that prevents the merge."""
    graph = build(seed, (2, 5, *size))
    value = graph.node("Conv", "x", graph.random(4, 5, 1, 1), graph.random(4)) if front else "x"
    channels = 4 if front else 5
    operands = [graph.random(channels, 3, stride, stride)] + ([graph.random(3)] if biases[0] else [])
    value = graph.node("ConvTranspose", value, *operands, strides=[stride, stride])
    if between:
        value = graph.node(between, value)
    operands = [graph.random(3, 3, kernel, kernel)] + ([graph.random(3)] if biases[1] else [])
    return graph.model(graph.node("Conv", value, *operands, **{"pads": [pad] * 4, **second}))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), stride=st.integers(2, 4), kernel=st.sampled_from([1, 3]),
    inner=st.booleans(), size=st.sampled_from([(1, 1), (2, 3), (4, 2)]),
    biases=st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
def test_transposed_and_plain_convolution_become_one(
    build: Callable, fold: Callable, seed: int, stride: int, kernel: int, inner: bool, size: tuple[int, int],
    biases: tuple[bool, bool],
) -> None:  # fmt: skip
    if stride < kernel or size == (1, 1):
        stride = 4  # large enough for the merge to pay off
    if size == (1, 1) and kernel == 3 and inner:
        inner = False
    ops, count = fold(_chain(build, seed, stride, kernel, 0 if inner else kernel // 2, size, biases), RULE)
    assert count == 1
    assert ops == ["Conv", "ConvTranspose"]


@pytest.mark.parametrize(
    "change",
    [{"between": "Relu"}, {"strides": [2, 2]}, {"dilations": [2, 2]}, {"pad": 3}],
    ids=["an activation between", "a stride", "a dilation", "padding beyond the kernel"],
)
def test_convolutions_that_are_not_one_linear_map_are_kept(
    build: Callable, fold: Callable, change: dict[str, Any]
) -> None:
    arguments = {"stride": 4, "kernel": 3, "pad": 1, "size": (3, 4), "biases": (True, True), **change}
    model = _chain(build, 0, **arguments)
    ops, count = fold(model, RULE)
    assert count == 0
    assert ops == [node.op_type for node in model.graph.node]


def test_a_bias_needs_a_convolution_in_front_to_carry_it(build: Callable, fold: Callable) -> None:
    arguments = {"stride": 4, "kernel": 3, "pad": 1, "size": (3, 4), "front": False}
    assert fold(_chain(build, 0, biases=(True, False), **arguments), RULE)[1] == 0
    assert fold(_chain(build, 0, biases=(False, True), **arguments), RULE)[1] == 1


def test_a_merge_that_would_cost_more_is_not_made(build: Callable, fold: Callable) -> None:
    """With stride 1 the merged 5x5 kernel needs 25 products, two 3x3 kernels 18."""
    graph = build(0, (1, 4, 6, 6))
    value = graph.node("ConvTranspose", "x", graph.random(4, 4, 3, 3), strides=[1, 1])
    model = graph.model(graph.node("Conv", value, graph.random(4, 4, 3, 3), pads=[1] * 4))
    assert fold(model, RULE)[1] == 0
