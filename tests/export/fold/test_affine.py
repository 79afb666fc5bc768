"""Affine folding on random graphs in double precision, against ONNX's reference evaluator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mvde.export.fold import fold_affine_into_conv, fold_graph  # noqa: E402


@dataclass
class Chain:
    """Builder of an ONNX model: elementwise operators before a convolution."""

    rng: np.random.Generator
    channels: int = 3
    source_channels: int = 3
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    value: str = "x"

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def elementwise(self, op: str, array: np.ndarray, constant_first: bool = False) -> None:
        operands = [self.value, self.constant(array)]
        self.value = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, operands[::-1] if constant_first else operands, [self.value]))

    def model(self, kernel: int = 2, with_bias: bool = True, extra_output: str | None = None, **attributes: object):
        group = attributes.get("group", 1)
        weight = self.constant(self.rng.normal(size=(6, self.channels // group, kernel, kernel)))
        inputs = [self.value, weight] + ([self.constant(self.rng.normal(size=6))] if with_bias else [])
        conv = helper.make_node("Conv", inputs, ["y"], **attributes)
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None] * 4) for name in ["y", extra_output] if name
        ]
        source = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [2, self.source_channels, 8, 6])
        graph = helper.make_graph([*self.nodes, conv], "chain", [source], outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def folded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    rewritten = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    count = fold_graph(rewritten)["affine-into-conv"]
    result = ir.to_proto(rewritten)
    onnx.checker.check_model(result, full_check=True)
    return result, count


def assert_same_function(before: onnx.ModelProto, after: onnx.ModelProto, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, before.graph.input[0].type.tensor_type.shape.dim[1].dim_value, 8, 6))
    expected, actual = (ReferenceEvaluator(model).run(None, {"x": x}) for model in (before, after))
    for left, right in zip(expected, actual, strict=True):
        # Double precision; only the order of a few hundred additions differs.
        np.testing.assert_allclose(right, left, rtol=1e-10, atol=1e-10 * np.abs(left).max())


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.sampled_from(["Add", "Sub", "Mul", "Div"]), min_size=1, max_size=5),
    stride=st.integers(1, 3),
    kernel=st.integers(1, 3),
    with_bias=st.booleans(),
)
def test_per_channel_affine_chains_are_folded_into_the_convolution(
    seed: int, steps: list[str], stride: int, kernel: int, with_bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    chain = Chain(rng)
    for op in steps:
        shape = [(), (1,), (3, 1, 1), (1, 3, 1, 1), (1, 1, 1, 1)][rng.integers(5)]
        first = op in {"Add", "Mul"} and bool(rng.integers(2))
        chain.elementwise(op, rng.uniform(0.3, 2.0, shape) * rng.choice([-1.0, 1.0]), first)
    before = chain.model(kernel, with_bias, strides=[stride, stride])
    after, count = folded(before)
    assert count == 1
    assert ops(after) == ["Conv"]
    assert len(after.graph.initializer) == 2
    assert_same_function(before, after, rng)


def refused_chains() -> dict[str, tuple[Chain, dict[str, object]]]:
    rng = np.random.default_rng(7)
    cases: dict[str, tuple[Chain, dict[str, object]]] = {}

    def case(
        name: str,
        op: str,
        array: np.ndarray,
        first: bool = False,
        channels: int = 3,
        source_channels: int = 0,
        **attributes: object,
    ) -> None:
        chain = Chain(rng, channels, source_channels or channels)
        chain.elementwise(op, array, first)
        cases[name] = (chain, attributes)

    case("padding", "Add", np.array(2.0), pads=[1, 1, 1, 1])
    case("automatic padding", "Add", np.array(2.0), auto_pad="SAME_UPPER")
    case("groups", "Mul", np.array(2.0), channels=2, group=2)
    case("a constant that varies over columns", "Mul", rng.uniform(1, 2, (1, 1, 1, 6)))
    case("a constant that varies over images", "Mul", rng.uniform(1, 2, (2, 1, 1, 1)))
    case("a constant minus the value", "Sub", np.array(2.0), first=True)
    case("a constant divided by the value", "Div", np.array(2.0), first=True)
    case("a value that is also an output", "Add", np.array(2.0), extra_output="value_0")
    case("a constant that widens one channel to three", "Mul", rng.uniform(1, 2, (3, 1, 1)), source_channels=1)
    return cases


@pytest.mark.parametrize("name", list(refused_chains()))
def test_affine_chains_that_would_change_the_result_are_kept(name: str) -> None:
    chain, attributes = refused_chains()[name]
    before = chain.model(**attributes)
    after, count = folded(before)
    assert count == 0
    assert ops(after) == ops(before)
    assert_same_function(before, after, np.random.default_rng(1))


def test_a_value_that_two_convolutions_read_is_not_folded() -> None:
    chain = Chain(np.random.default_rng(3))
    chain.elementwise("Mul", np.array(0.5))
    before = chain.model()
    before.graph.node.append(helper.make_node("Conv", list(before.graph.node[-1].input), ["z"]))
    before.graph.output.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, [None] * 4))
    after, count = folded(before)
    assert count == 0
    assert_same_function(before, after, np.random.default_rng(1))


def test_convolution_without_a_chain_is_left_alone() -> None:
    model = ir.from_proto(Chain(np.random.default_rng(0)).model())
    weight = model.graph.node(0).inputs[1].name
    assert fold_affine_into_conv(model) == 0
    assert model.graph.node(0).inputs[1].name == weight


def test_weights_keep_their_type() -> None:
    chain = Chain(np.random.default_rng(0))
    chain.elementwise("Div", np.array(255.0))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(chain.model()))
    assert fold_affine_into_conv(model) == 1
    fold_graph(model)
    assert {value.const_value.dtype for value in model.graph.initializers.values()} == {ir.DataType.DOUBLE}
