"""Emulated dtypes: float32 graphs that round like the typed graph, bit-identical to ml_dtypes."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")
ml_dtypes = pytest.importorskip("ml_dtypes")
pytest.importorskip("onnxruntime")

from mvde.export.graph.run import GraphSession  # noqa: E402
from mvde.export.precision.cast import cast_nodes  # noqa: E402
from mvde.export.precision.emulate import emulated  # noqa: E402
from mvde.export.precision.groups import node_groups  # noqa: E402
from mvde.precision import Precision  # noqa: E402

SCALE, SHIFT = 1.0 / 37, 0.123


@pytest.fixture
def affine() -> ir.Model:
    """Graph of uint8 (1, 4, 4, 3) → ``image * SCALE + SHIFT``, reshaped."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=kinds.FLOAT, name="cast"),
        helper.make_node("Mul", ["x", "scale"], ["y"], name="mul"),
        helper.make_node("Add", ["y", "shift"], ["z"], name="add"),
        helper.make_node("Reshape", ["z", "shape"], ["depth"], name="reshape"),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.float32(SCALE), "scale"),
        onnx.numpy_helper.from_array(np.float32(SHIFT), "shift"),
        onnx.numpy_helper.from_array(np.array([1, 4, 12], np.int64), "shape"),
    ]
    image = helper.make_tensor_value_info("image", kinds.UINT8, [1, 4, 4, 3])
    depth = helper.make_tensor_value_info("depth", kinds.FLOAT, [1, 4, 12])
    graph = helper.make_graph(nodes, "affine", [image], [depth], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize(("precision", "low"), [(Precision.FP16, np.float16), (Precision.BF16, ml_dtypes.bfloat16)])
def test_every_operation_is_rounded_once(affine: ir.Model, precision: Precision, low: type) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(low).astype(np.float32)

    expected = rounded(rounded(image.astype(np.float32) * rounded(np.float32(SCALE))) + rounded(np.float32(SHIFT)))
    cast_nodes(affine, precision, set())
    found = GraphSession(emulated(affine)).depth(image)
    np.testing.assert_array_equal(found, expected.reshape(1, 4, 12))


def test_nodes_that_are_kept_compute_in_fp32_and_clones_are_not_touched(affine: ir.Model) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    before = GraphSession(affine).depth(image)
    copy = affine.clone()
    cast_nodes(copy, Precision.BF16, {"mul", "add", "reshape"})
    np.testing.assert_array_equal(GraphSession(emulated(copy)).depth(image), before)  # uint8 values are exact in bf16
    cast_nodes(affine.clone(), Precision.BF16, set())
    np.testing.assert_array_equal(GraphSession(affine).depth(image), before)


def test_numbers_beyond_fp16_become_infinite(affine: ir.Model) -> None:
    constant = affine.graph.initializers["scale"]
    constant.const_value = ir.tensor(np.float32(1e3), name="scale")
    cast_nodes(affine, Precision.FP16, set())
    image = np.full((1, 4, 4, 3), 255, np.uint8)
    assert np.isinf(GraphSession(emulated(affine)).depth(image)).all()


def test_every_computing_node_is_in_one_group(affine: ir.Model) -> None:
    (group,) = node_groups(affine.graph)
    assert group.nodes == ("cast", "mul", "add", "reshape")
    assert group.num_computing == 3
