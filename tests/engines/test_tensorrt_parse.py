"""TensorRT-RTX's parser on unusual graphs, in a child process (see test_tensorrt_build)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.artifact import Artifact

pytest.importorskip("onnx")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed"
)

PARSING = """
from pathlib import Path
import numpy as np
import onnx
from onnx import helper, numpy_helper
from mvde.engines.tensorrt.api import load_api
from mvde.engines.tensorrt.inspect import check_network, inspect_network
from mvde.engines.tensorrt.parse import parse_graph
from mvde.precision import Precision
from mvde.errors import BackendError

model = onnx.load("export/tiny-32x48.onnx")
graph = model.graph
api = load_api("tensorrt-rtx")
builder = api.builder()
"""


@pytest.fixture
def folder(tmp_path: Path, write_graph: Callable[..., Artifact]) -> Path:
    """Folder with the graph tiny-32x48."""
    write_graph(tmp_path / "export")
    return tmp_path


def python(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script after :data:`PARSING` in a child process."""
    command = [sys.executable, "-c", PARSING + script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_node_that_the_parser_refuses_is_named_with_a_way_out(folder: Path) -> None:
    script = """
graph.node[-1].output[0] = "inner"
graph.node.append(helper.make_node("Det", ["inner"], ["odd"], name="the_odd_one"))
graph.node.append(helper.make_node("Add", ["inner", "odd"], ["depth"]))
onnx.save(model, "odd.onnx")
try:
    parse_graph(api, builder, Path("odd.onnx"))
except BackendError as error:
    print(error)
"""
    done = python(folder, script)
    assert done.returncode == 0, done.stderr
    assert "node the_odd_one (Det)" in done.stdout
    assert "export it with another --opset" in done.stdout


def test_a_constant_that_is_resized_at_run_time_is_refused(folder: Path) -> None:
    """As from a position embedding that is resampled in the graph."""
    script = """
graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 16, 24), np.float32), "embedding"))
graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
graph.initializer.append(numpy_helper.from_array(np.array([1, 32, 48], np.int64), "flat"))
graph.node[-1].output[0] = "inner"
for made in (
    helper.make_node("Resize", ["embedding", "", "scales"], ["resized"], name="resample", mode="linear"),
    helper.make_node("Reshape", ["resized", "flat"], ["reshaped"]),
    helper.make_node("Add", ["inner", "reshaped"], ["depth"]),
):
    graph.node.append(made)
onnx.save(model, "resampled.onnx")
network, parser = parse_graph(api, builder, Path("resampled.onnx"))
try:
    check_network(inspect_network(network), Precision.FP32, "TensorRT-RTX")
except BackendError as error:
    print(error)
"""
    done = python(folder, script)
    assert done.returncode == 0, done.stderr
    assert "resizes constants at run time (resample)" in done.stdout


def test_a_product_of_two_quantised_operands_counts_as_int8(folder: Path) -> None:
    script = """
for name, value in (("scale", np.float32(0.02)), ("zero", np.int8(0)), ("weight8", np.full((1, 3, 1, 1), 3, np.int8))):
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
(at,) = [index for index, node in enumerate(graph.node) if node.op_type == "Conv"]
graph.node[at].input[0], graph.node[at].input[1] = "planes_dq", "weight_dq"
for made in (
    helper.make_node("DequantizeLinear", ["weight8", "scale", "zero"], ["weight_dq"]),
    helper.make_node("DequantizeLinear", ["planes_q", "scale", "zero"], ["planes_dq"]),
    helper.make_node("QuantizeLinear", ["planes", "scale", "zero"], ["planes_q"]),
):
    graph.node.insert(at, made)
onnx.save(model, "quantised.onnx")
network, parser = parse_graph(api, builder, Path("quantised.onnx"))
facts = inspect_network(network)
print(facts.products_by_dtype, facts.executed_precision)
"""
    done = python(folder, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'int8': 1} int8\n"
