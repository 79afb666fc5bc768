"""Non-overlapping transposed convolutions as a 1x1 convolution and a DepthToSpace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

RULE = "spread-by-depth-to-space"


def _transposed(build: Callable, seed: int, kernel: int, stride: int, size: tuple[int, int], bias: bool, **more: Any):
    graph = build(seed, (2, 5, *size))
    operands = [graph.random(5, 3, kernel, kernel)] + ([graph.random(3)] if bias else [])
    value = graph.node("ConvTranspose", "x", *operands, strides=[stride, stride], **more)
    return graph.model(graph.node("Relu", value))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), stride=st.integers(2, 4), size=st.sampled_from([(1, 1), (2, 3), (4, 2)]),
    bias=st.booleans(),
)  # fmt: skip
def test_channels_are_spread_over_the_pixels_that_they_stand_for(
    build: Callable, fold: Callable, seed: int, stride: int, size: tuple[int, int], bias: bool
) -> None:
    ops, count = fold(_transposed(build, seed, stride, stride, size, bias), RULE)
    assert count == 1
    assert ops == ["Conv", "DepthToSpace", "Relu"]


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": 3},
        {"kernel": 1, "stride": 1},
        {"pads": [1, 0, 0, 0]},
        {"output_padding": [1, 0]},
        {"output_shape": [9, 12]},
    ],
    ids=["kernels that overlap", "no stride", "padding", "output padding", "a shape of its own"],
)
def test_other_transposed_convolutions_are_kept(build: Callable, fold: Callable, change: dict[str, Any]) -> None:
    arguments = {"seed": 0, "kernel": 2, "stride": 2, "size": (4, 6), "bias": True, **change}
    ops, count = fold(_transposed(build, **arguments), RULE)
    assert count == 0
    assert ops == ["ConvTranspose", "Relu"]
