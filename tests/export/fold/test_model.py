"""All rules on an exported model: same depth, and TensorRT-RTX still recognises attention."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.export.fold import DEFAULT_RULES, RULES, fold_graph

COUNT_ATTENTION = """
import sys, tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
for path in sys.argv[1:]:
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(open(path, "rb").read()):
        sys.exit("; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
    kinds = [str(network.get_layer(index).type) for index in range(network.num_layers)]
    print(sum(kind.endswith("ATTENTION_INPUT") for kind in kinds))
"""


@pytest.fixture(scope="module")
def folded(exported: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Exported graph with every rule applied, and the number of matches per rule."""
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    graph = ir.load(exported[0])
    ShapeInferencePass()(graph)
    applied = fold_graph(graph, RULES)
    path = tmp_path_factory.mktemp("folded") / "all.onnx"
    ir.save(graph, path)
    onnx.checker.check_model(str(path), full_check=True)
    return path, applied


def test_every_rule_applies_to_the_model_and_keeps_its_depth(
    exported: tuple[Path, int], folded: tuple[Path, dict[str, int]], random_images: Callable
) -> None:
    from mvde.engines.onnxruntime.engine import open_onnx

    path, applied = folded
    at_export = {"affine-into-conv", "squeeze-before-resize", "conv-before-resize"}  # or made redundant by the decoder
    at_export |= {"spread-by-depth-to-space", "conv-into-transposed"}  # the first rule pre-empts the second
    at_export |= {"drop-open-masks"}  # of models of transformers
    needs_attention = {"scale-into-query"} if exported[1] < 23 else set()
    assert {rule for rule, count in applied.items() if count == 0} <= at_export | needs_attention
    images = random_images(1, 48, 80, 3)
    before, after = (open_onnx(one).infer(images) for one in (exported[0], path))
    assert before.std() > 0.1
    np.testing.assert_allclose(after, before, rtol=1e-4)  # the export's tolerance: float32 summation order differs


def test_tensorrt_rtx_recognises_every_attention(exported: tuple[Path, int], folded: tuple[Path, dict]) -> None:
    pytest.importorskip("tensorrt_rtx")
    # In a child process: loaded here without a GPU, the library made a later test crash.
    command = [sys.executable, "-c", COUNT_ATTENTION, str(exported[0]), str(folded[0])]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    before, after = (int(line) for line in result.stdout.split())
    assert before == after
    if exported[1] >= 23:
        assert after == 4  # one per layer


def test_the_default_rules_exist() -> None:
    assert set(DEFAULT_RULES) <= set(RULES)
