"""The patch embedding as a matrix product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

RULE = "patches-by-product"


def _embedding(
    build: Callable, seed: int, patch: int, grid: tuple[int, int], batch: int, with_bias: bool, stride: int = 0
) -> Any:
    graph = build(seed, (batch, grid[0] * patch, grid[1] * patch, 3))
    planes = graph.node("Transpose", "x", perm=[0, 3, 1, 2])
    operands = [graph.random(7, 3, patch, patch)] + ([graph.random(7)] if with_bias else [])
    embedded = graph.node("Conv", planes, *operands, strides=[stride or patch] * 2)
    rows = graph.node("Transpose", embedded, perm=[0, 2, 3, 1])
    return graph.model(graph.node("Reshape", rows, graph.constant([batch, -1, 7])))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), patch=st.integers(1, 4), grid=st.sampled_from([(1, 1), (2, 3), (3, 2)]),
    batch=st.integers(1, 2), with_bias=st.booleans(),
)  # fmt: skip
def test_patches_become_rows_of_a_product(
    build: Callable, fold: Callable, seed: int, patch: int, grid: tuple[int, int], batch: int, with_bias: bool
) -> None:
    ops, count = fold(_embedding(build, seed, patch, grid, batch, with_bias), RULE)
    assert count == 1
    assert ops == ["Reshape", "Transpose", "Reshape", "MatMul"] + ["Add"] * with_bias


@pytest.mark.parametrize("stride", [1, 3])
def test_overlapping_or_spaced_patches_stay_a_convolution(build: Callable, fold: Callable, stride: int) -> None:
    assert fold(_embedding(build, 0, 2, (4, 4), 1, True, stride), RULE)[1] == 0
