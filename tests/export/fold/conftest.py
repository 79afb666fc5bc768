"""Random double-precision graphs, compared before and after folding in ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mvde.export.fold import fold_graph  # noqa: E402


class Builder:
    """Builder of an ONNX model from constants and nodes."""

    def __init__(self, seed: int, shape: Sequence[int]) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = tuple(shape)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, array: Any) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def random(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape))

    def node(self, op: str, *inputs: str, num_outputs: int = 1, **attributes: Any) -> Any:
        outputs = [f"value_{len(self.nodes)}_{index}" for index in range(num_outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs[0] if num_outputs == 1 else outputs

    def linear(self, value: str, rows: int, columns: int, with_bias: bool = True) -> str:
        product = self.node("MatMul", value, self.random(rows, columns))
        return self.node("Add", product, self.random(columns)) if with_bias else product

    def model(self, *outputs: str, opset: int = 23) -> Any:
        source = helper.make_tensor_value_info("x", TensorProto.DOUBLE, self.shape)
        sinks = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "random", [source], sinks, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


@pytest.fixture(scope="session")
def build() -> Callable[..., Builder]:
    return Builder


@pytest.fixture(scope="session")
def fold() -> Callable[..., tuple[list[str], int]]:
    """Apply one rule to a model; returns the remaining operators and the number of matches.

    The folded model must pass ONNX's checker and be equivalent; 1e-9 allows for reordering a few hundred additions.
    """

    def run(model: Any, rule: str, tolerance: float = 1e-9) -> tuple[list[str], int]:
        rewritten = ir.from_proto(onnx.shape_inference.infer_shapes(model))
        count = fold_graph(rewritten, [rule])[rule]
        after = ir.to_proto(rewritten)
        onnx.checker.check_model(after, full_check=True)
        shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        x = np.random.default_rng(9).normal(size=shape)
        expected, actual = (ReferenceEvaluator(one).run(None, {"x": x}) for one in (model, after))
        assert [output.name for output in after.graph.output] == [output.name for output in model.graph.output]
        for left, right in zip(expected, actual, strict=True):
            np.testing.assert_allclose(right, left, rtol=tolerance, atol=tolerance * np.abs(left).max())
        return [node.op_type for node in after.graph.node], count

    return run
