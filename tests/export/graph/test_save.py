"""Streamed files against those serialised by onnx."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mvde.errors import BackendError  # noqa: E402
from mvde.export.graph import save  # noqa: E402
from mvde.files import sha256_file  # noqa: E402


def make_model(num_layers: int = 3, op: str = "MatMul") -> onnx.ModelProto:
    """Matrix products (16 kB weights, streamed) and additions of scalars (inline)."""
    rng = np.random.default_rng(0)
    nodes, initializers, value = [], [], "x"
    for index in range(num_layers):
        initializers += [
            numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), f"weight_{index}"),
            numpy_helper.from_array(np.float32(index), f"shift_{index}"),
        ]
        nodes += [
            helper.make_node(op, [value, f"weight_{index}"], [f"product_{index}"]),
            helper.make_node("Add", [f"product_{index}", f"shift_{index}"], [f"sum_{index}"]),
        ]
        value = f"sum_{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 64]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "mvde", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_streamed_file_is_the_same_message(tmp_path: Path) -> None:
    model = make_model()
    records = save.save_model(ir.from_proto(model), tmp_path / "a.onnx", {"mvde.version": "1", "mvde.name": "a"})
    written = onnx.load(str(tmp_path / "a.onnx"))
    assert [record.name for record in records] == ["a.onnx"]
    assert records[0].sha256 == sha256_file(tmp_path / "a.onnx")
    assert records[0].size_bytes == (tmp_path / "a.onnx").stat().st_size
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert tensors.keys() == {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(tensors[tensor.name], numpy_helper.to_array(tensor))
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in model.graph.node]
    assert [value.name for value in written.graph.input] == ["x"]
    assert {entry.key: entry.value for entry in written.metadata_props} == {"mvde.version": "1", "mvde.name": "a"}
    assert written.producer_name == "mvde"
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)


def test_streamed_file_computes_the_same(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = make_model()
    x = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    save.save_model(ir.from_proto(model), tmp_path / "a.onnx", {})
    session = ort.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4)


def test_weights_past_the_limit_go_into_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ort = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(save, "MAX_INLINE_BYTES", 10_000)
    model = make_model()
    x = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    records = save.save_model(ir.from_proto(model), tmp_path / "a.onnx", {})
    assert [re.sub(r"\.[0-9a-f]{8}\.", ".*.", record.name) for record in records] == ["a.onnx", "a.*.data"]
    assert records[0].size_bytes < 10_000 < 3 * 64 * 64 * 4 <= records[1].size_bytes
    session = ort.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4)


def test_graph_that_the_checker_refuses_is_a_backend_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"checker rejects.*a\.onnx"):
        save.save_model(ir.from_proto(make_model(op="NoSuchOperator")), tmp_path / "a.onnx", {})
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16_383, 16_384, 2**31, 2**35 + 1])
def test_varint_is_protobufs(value: int) -> None:
    encoded = save._varint(value)
    # A protobuf message with one integer field: key 2 << 3 | 0 is OperatorSetIdProto.version.
    assert onnx.OperatorSetIdProto.FromString(b"\x10" + encoded).version == value
