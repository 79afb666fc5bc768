"""LayerNormalization's scale and shift fold into all its consumers or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

RULE = "norm-into-products"


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    biases=st.lists(st.booleans(), min_size=1, max_size=3),
    with_shift=st.booleans(),
    rank=st.integers(2, 4),
)
def test_scale_and_shift_are_folded_into_all_readers(
    build: Callable, fold: Callable, seed: int, biases: list[bool], with_shift: bool, rank: int
) -> None:
    graph = build(seed, (2, 3, 4, 5)[-rank:])
    norm = graph.node("LayerNormalization", "x", graph.random(5), *([graph.random(5)] if with_shift else []), axis=-1)
    outputs = [graph.linear(norm, 5, 3 + index, with_bias) for index, with_bias in enumerate(biases)]
    ops, count = fold(graph.model(*outputs), RULE)
    assert count == 1
    assert ops.count("MatMul") == len(biases)
    assert ops.count("Add") == (len(biases) if with_shift else sum(biases))


def _refused(build: Callable, case: str) -> Any:
    graph = build(3, (2, 4, 5))
    axis = 1 if case == "normalised over two axes" else -1
    sizes = (4, 5) if axis == 1 else (5,)
    norm = graph.node("LayerNormalization", "x", graph.random(*sizes), graph.random(*sizes), axis=axis)
    outputs = [graph.linear(norm, 5, 3)]
    if case == "read by a sum as well":
        outputs.append(graph.node("Add", norm, "x"))
    elif case == "an output itself":
        outputs.append(norm)
    elif case == "the right operand":
        outputs = [graph.node("MatMul", graph.random(3, 4), norm)]
    elif case == "a product with another value":
        outputs = [graph.node("MatMul", norm, graph.node("Transpose", "x", perm=[0, 2, 1]))]
    return graph.model(*outputs)


@pytest.mark.parametrize(
    "case",
    ["normalised over two axes", "read by a sum as well", "an output itself", "the right operand",
     "a product with another value"],
)  # fmt: skip
def test_what_cannot_be_folded_into_a_product_is_kept(build: Callable, fold: Callable, case: str) -> None:
    model = _refused(build, case)
    assert fold(model, RULE)[1] == 0


def test_a_second_pass_finds_nothing(build: Callable, fold: Callable) -> None:
    import onnx
    import onnx_ir as ir

    from mvde.export.fold import fold_graph

    graph = build(1, (2, 5))
    norm = graph.node("LayerNormalization", "x", graph.random(5), graph.random(5))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(graph.model(graph.linear(norm, 5, 4))))
    assert fold_graph(model, [RULE])[RULE] == 1
    assert fold_graph(model, [RULE])[RULE] == 0
