"""TensorRT-RTX recognises every attention and layer normalisation of an exported SigLIP model.

The library runs in a child process, as in ``tests/engines/test_tensorrt_build.py``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mvde.export.precision.node_counts import num_attention, num_layer_norm

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed"
)

SCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import numpy as np
from mvde.engines.base import Graph
from mvde.engines.tensorrt.api import load_api
from mvde.engines.tensorrt.inspect import check_network, check_promise, inspect_network
from mvde.engines.tensorrt.parse import parse_graph
from mvde.export.precision import HeldOut, LowerOptions, lower_graph, targets
from mvde.precision import Precision
from mvde.records import GateTolerance

# Noise in a model of random weights would keep half of it in fp32; this is about what the parser makes of fp16.
targets.target = lambda precision: targets.Target(1.0, 1.0)
targets.gate_tolerance = lambda precision: GateTolerance(1.0, 1.0, 1.0, 1.0)
images = np.random.default_rng(0).integers(0, 256, (6, 48, 80, 3), np.uint8)
options = LowerOptions(calibration=images[:4], held_out=(HeldOut(images[4:], "noise"),))  # a few: this is about parsing
given, folder = Path(sys.argv[1]), Path(sys.argv[2])
api = load_api("tensorrt-rtx")
for precision in (Precision.FP32, Precision.FP16):
    graph = Graph(given) if precision is Precision.FP32 else lower_graph(Graph(given), precision, folder, options)
    builder = api.builder()
    network, parser = parse_graph(api, builder, graph.path)
    parsed = inspect_network(network)
    check_network(parsed, precision, "TensorRT-RTX")
    if graph.lowering is not None:
        check_promise(parsed, graph.lowering, "TensorRT-RTX")
    print(json.dumps(asdict(parsed)))
"""


def test_attentions_and_layer_normalisations_are_recognised(exported: tuple[Path, int], tmp_path: Path) -> None:
    import onnx

    path, opset = exported
    command = [sys.executable, "-c", SCRIPT, str(path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    model = onnx.load(str(path))
    for line, dtype in zip(done.stdout.splitlines(), ("fp32", "fp16"), strict=True):
        parsed = json.loads(line)
        assert parsed["num_attention"] + parsed["num_softmax"] == num_attention(model) > 0
        assert (parsed["num_attention"] > 0) is (opset >= 23)
        assert parsed["num_layer_norm"] == num_layer_norm(model) > 0
        products = parsed["products_by_dtype"]
        assert max(products, key=products.get) == dtype
        assert parsed["constant_resizes"] == []


BUILD = """
import sys
from pathlib import Path
import numpy as np
from mvde.artifact import load_graph
from mvde.engines.base import BuildOptions, EngineId
from mvde.engines.build import build_engine
from mvde.export.precision import HeldOut, LowerOptions, lower_graph, targets
from mvde.precision import Precision
from mvde.records import GateTolerance

targets.target = lambda precision: targets.Target(1.0, 1.0)
targets.gate_tolerance = lambda precision: GateTolerance(1.0, 1.0, 1.0, 1.0)
images = np.random.default_rng(0).integers(0, 256, (6, 48, 80, 3), np.uint8)
options = LowerOptions(calibration=images[:4], held_out=(HeldOut(images[4:], "noise"),))

def lower(graph, precision, folder):
    return lower_graph(graph, precision, folder, options)

chosen = BuildOptions(without_device=True, settings={"compute_capability": "8.9"})
source = load_graph(Path(sys.argv[1]))
engine_id = EngineId("tensorrt-rtx", Precision.BF16)
report = build_engine(source, engine_id, images[:1], root=Path(sys.argv[2]), options=chosen, lower_graph=lower)
print(report.manifest.engine.executed_precision, report.manifest.engine.cuda.network.num_attention)
"""


def test_a_whole_bf16_graph_is_built(exported: tuple[Path, int], tmp_path: Path) -> None:
    """TensorRT-RTX 1.7 lacks bf16 transposed convolutions; exported graphs avoid them."""
    path, opset = exported
    if opset < 23:
        pytest.skip("bf16 convolutions need opset 22")
    command = [sys.executable, "-c", BUILD, str(path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["bf16", "4"]
