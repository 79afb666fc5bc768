"""Typed graphs: explicit dtypes inside, the same input and output, and close to the fp32 graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.artifact import Artifact
from mvde.engines.base import Graph
from mvde.errors import BackendError, UsageError
from mvde.export.precision import lower_graph

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_an_fp16_graph_has_fp16_weights_and_the_same_interface(
    tmp_path: Path, write_graph: Callable[..., Artifact], random_images: Callable, closed_form_depth: Callable
) -> None:
    source = write_graph(tmp_path / "export")
    lowered = lower_graph(Graph(source.path), "fp16", tmp_path)
    model = onnx.load(str(lowered.path))
    onnx.checker.check_model(model)
    kinds = {value.name: value.data_type for value in model.graph.initializer}
    assert kinds["weight"] == onnx.TensorProto.FLOAT16
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    images = random_images(1, 32, 48, 3)
    evaluated = onnx.reference.ReferenceEvaluator(model).run(None, {"image": images})[0]
    np.testing.assert_allclose(evaluated, closed_form_depth(images), rtol=3e-3)  # fp16's spacing is 1e-3 relative


def test_another_precision_is_wrong_usage(tmp_path: Path, write_graph: Callable[..., Artifact]) -> None:
    with pytest.raises(UsageError, match="bf16"):
        lower_graph(Graph(write_graph(tmp_path).path), "bf16", tmp_path)


def test_a_file_that_is_no_graph_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not protobuf")
    with pytest.raises(BackendError, match=r"cannot convert .*broken\.onnx to fp16"):
        lower_graph(Graph(tmp_path / "broken.onnx"), "fp16", tmp_path)


def test_a_typed_graph_says_how_many_nodes_compute_in_what(
    tmp_path: Path, write_graph: Callable[..., Artifact]
) -> None:
    source = write_graph(tmp_path / "export")
    record = lower_graph(Graph(source.path), "fp16", tmp_path).precision
    assert record is not None
    assert record.onnx_sha256 == source.manifest.file.sha256
    assert record.num_by_dtype == {"fp16": 3}  # Transpose, Conv and Reshape; the casts at both ends are not counted
    assert (record.num_attention, record.num_layer_norm) == (0, 0)
    assert record.share("fp16") == 1.0
