"""Running a graph: intermediate tensors against ONNX Runtime, and one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")
ort = pytest.importorskip("onnxruntime")

from mvde.errors import BackendError  # noqa: E402
from mvde.export.graph.load import load_fp32  # noqa: E402
from mvde.export.graph.run import GraphSession, largest_magnitudes, split_by_bytes  # noqa: E402
from mvde.precision import Precision  # noqa: E402


def test_largest_magnitudes_are_those_of_the_tensors_themselves(
    exported: tuple[Path, int], random_images: Callable[..., np.ndarray]
) -> None:
    images = random_images(2, 48, 80, 3)
    base = load_fp32(exported[0], Precision.FP16)
    nodes = [node for node in base.graph if node.op_type in {"MatMul", "Conv"}]
    found = largest_magnitudes(base, [str(node.name) for node in nodes], images)
    model = onnx.load(str(exported[0]))
    names = [str(node.outputs[0].name) for node in nodes]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(names, {"image": image[None]}) for image in images]
    for index, node in enumerate(nodes):
        expected = max(np.abs(run[index]).max() for run in runs)
        assert found[str(node.name)] == pytest.approx(expected, rel=1e-4)  # summation order differs


def test_large_tensors_are_fetched_in_several_runs(exported: tuple[Path, int]) -> None:
    base = load_fp32(exported[0], Precision.FP16)
    values = [node.outputs[0] for node in base.graph if node.op_type == "MatMul"][:3]
    names = [str(value.name) for value in values]
    sizes = [4 * int(np.prod(value.shape.numpy())) for value in values]
    assert split_by_bytes(base, names, limit=sizes[0] + sizes[1]) == [names[:2], names[2:]]
    assert split_by_bytes(base, names, limit=1) == [[name] for name in names]


def test_depth_of_a_file_and_of_the_graph_in_memory_agree(
    exported: tuple[Path, int], random_images: Callable[..., np.ndarray]
) -> None:
    images = random_images(3, 48, 80, 3)
    from_file = GraphSession(exported[0]).depth(images)
    in_memory = GraphSession(load_fp32(exported[0], Precision.FP16)).depth(images)
    assert from_file.shape == (3, 48, 80)
    np.testing.assert_allclose(in_memory, from_file, rtol=1e-5)


def test_a_file_that_onnxruntime_refuses_is_one_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"^ONNX Runtime cannot load the exported graph broken\.onnx: .+$"):
        GraphSession(broken)
