"""Query, key and value merge into one product; the score scale folds into the query's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_products_of_one_value_become_one(build: Callable, fold: Callable, seed: int, sizes: list[int]) -> None:
    graph = build(seed, (2, 3, 5))
    ops, count = fold(graph.model(*(graph.linear("x", 5, size) for size in sizes)), "joint-products")
    assert count == 1
    assert ops == ["MatMul", "Add", "Split"]


def test_products_of_different_values_stay_apart(build: Callable, fold: Callable) -> None:
    graph = build(0, (2, 3, 5))
    model = graph.model(graph.linear("x", 5, 4), graph.linear(graph.node("Relu", "x"), 5, 4))
    assert fold(model, "joint-products")[1] == 0


def test_a_product_without_a_bias_stays_apart(build: Callable, fold: Callable) -> None:
    graph = build(0, (2, 3, 5))
    model = graph.model(graph.linear("x", 5, 4), graph.linear("x", 5, 4, with_bias=False))
    assert fold(model, "joint-products")[1] == 0


def _attention(
    build: Callable,
    seed: int,
    heads: int,
    read_twice: bool = False,
    mask: np.ndarray | None = None,
    expanded: bool = False,
    **attributes: float,
) -> Any:
    graph, size = build(seed, (2, 6, 5)), 3

    def project() -> tuple[str, str]:
        tokens = graph.linear("x", 5, heads * size)
        parts = graph.node("Reshape", tokens, graph.constant([2, 6, heads, size]))
        return tokens, graph.node("Transpose", parts, perm=[0, 2, 1, 3])

    (tokens, query), (_, key), (_, value) = (project() for _ in range(3))
    masks = [] if mask is None else [graph.constant(mask)]
    masks = [graph.node("Expand", one, graph.constant([1, 1, 6, 6])) for one in masks] if expanded else masks
    output = graph.node("Attention", query, key, value, *masks, **attributes)
    return graph.model(output, tokens) if read_twice else graph.model(output)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), heads=st.integers(1, 3), scale=st.none() | st.floats(0.125, 3.0, width=32))
def test_the_scale_goes_into_the_query(
    build: Callable, fold: Callable, seed: int, heads: int, scale: float | None
) -> None:
    model = _attention(build, seed, heads, **({} if scale is None else {"scale": scale}))
    ops, count = fold(model, "scale-into-query", tolerance=1e-6)  # the evaluator rounds the scale to float32
    assert count == (scale != 1.0)
    assert ops == [node.op_type for node in model.graph.node]


def test_a_query_that_something_else_reads_keeps_its_weights(build: Callable, fold: Callable) -> None:
    assert fold(_attention(build, 0, 2, read_twice=True), "scale-into-query")[1] == 0


@pytest.mark.parametrize("rule", ["joint-products", "scale-into-query"])
def test_a_graph_without_attention_is_left_alone(build: Callable, fold: Callable, rule: str) -> None:
    graph = build(0, (2, 5))
    assert fold(graph.model(graph.linear("x", 5, 4)), rule)[1] == 0


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize(("mask", "is_open"), [(np.ones, True), (np.tri, False)])
def test_a_mask_that_hides_nothing_goes_away(
    build: Callable, fold: Callable, mask: Callable, is_open: bool, expanded: bool
) -> None:
    size = (1, 1, 6, 1) if expanded and is_open else (6, 6)
    array = (mask(size) if is_open else mask(6)).astype(bool)
    model = _attention(build, 0, 2, mask=array, expanded=expanded)
    _, count = fold(model, "drop-open-masks")
    assert count == is_open


def test_a_mask_that_adds_zero_goes_away_and_one_that_adds_something_stays(build: Callable, fold: Callable) -> None:
    assert fold(_attention(build, 0, 2, mask=np.zeros((6, 6))), "drop-open-masks")[1] == 1
    assert fold(_attention(build, 0, 2, mask=np.eye(6)), "drop-open-masks")[1] == 0
