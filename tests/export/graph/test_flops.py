"""Operation counts of a graph against PyTorch's counter and hand counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import read_manifest
from mvde.errors import BackendError
from tests.export.conftest import RESOLUTION

ir = pytest.importorskip("onnx_ir")
torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from mvde.export.graph.flops import count_flops, count_weight_multiply_adds  # noqa: E402


def graph_of(*nodes: onnx.NodeProto, inputs: dict[str, tuple], outputs: dict[str, tuple], **weights: tuple) -> ir.Model:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        "products",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))


def test_the_manifest_states_what_pytorch_counts(exported: tuple[Path, int], tiny_model: object) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.zeros(1, 3, *RESOLUTION, dtype=torch.uint8)
    # PyTorch's counter ignores the fused CPU attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tiny_model.predict_depth(images)  # type: ignore[attr-defined]
    assert read_manifest(exported[0]).num_flops == counter.get_total_flops()


@pytest.mark.parametrize(
    ("node", "inputs", "weights", "output", "expected"),
    [
        (("MatMul", {}), {"x": (2, 3, 5)}, {"w": (5, 7)}, (2, 3, 7), 2 * 2 * 3 * 5 * 7),
        (("Gemm", {"transA": 1}), {"x": (5, 3)}, {"w": (5, 7)}, (3, 7), 2 * 3 * 5 * 7),
        (("Gemm", {"transB": 1}), {"x": (3, 5)}, {"w": (7, 5)}, (3, 7), 2 * 3 * 5 * 7),
        (("Conv", {"group": 2}), {"x": (1, 4, 8, 8)}, {"w": (6, 2, 3, 3)}, (1, 6, 6, 6), 2 * 6 * 36 * 2 * 9),
        (("ConvTranspose", {"strides": [2, 2]}), {"x": (1, 4, 3, 3)}, {"w": (4, 5, 2, 2)}, (1, 5, 6, 6), 2 * 36 * 20),
    ],
)
def test_counts_by_hand(node: tuple, inputs: dict, weights: dict, output: tuple, expected: int) -> None:
    made = onnx.helper.make_node(node[0], ["x", "w"], ["y"], **node[1])
    graph = graph_of(made, inputs=inputs, outputs={"y": output}, **weights)
    assert count_flops(graph) == expected
    assert count_weight_multiply_adds(graph) == expected // 2


@pytest.mark.parametrize("packed", [True, False])
def test_attention_counts_both_of_its_products(packed: bool) -> None:
    heads, tokens, memory, size = 3, 10, 14, 8
    attributes = {"q_num_heads": heads, "kv_num_heads": heads} if packed else {}

    def shape(length: int) -> tuple:
        return (2, length, heads * size) if packed else (2, heads, length, size)

    node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["y"], **attributes)
    inputs = {"q": shape(tokens), "k": shape(memory), "v": shape(memory)}
    graph = graph_of(node, inputs=inputs, outputs={"y": shape(tokens)})
    assert count_flops(graph) == 2 * 2 * (2 * heads * tokens * memory * size)
    assert count_weight_multiply_adds(graph) == 0


def test_shapes_that_the_graph_lacks_are_inferred() -> None:
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("MatMul", ["h", "u"], ["y"])]
    graph = graph_of(*nodes, inputs={"x": (3, 5)}, outputs={"y": (3, 2)}, w=(5, 7), u=(7, 2))
    assert count_flops(graph) == 2 * 3 * 5 * 7 + 2 * 3 * 7 * 2


def test_a_shape_that_nobody_knows_is_named() -> None:
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = graph_of(node, inputs={"x": ("n", 5)}, outputs={"y": ("n", 7)}, w=(5, 7))
    with pytest.raises(BackendError, match=r"MatMul node .* has no fixed shape for 'y'"):
        count_flops(graph)
