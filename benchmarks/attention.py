"""Latency of mvde's attention kernel and OpenVINO's, in bf16: single operators and whole networks.

    python benchmarks/attention.py                                                  # single operators
    python benchmarks/attention.py export/nano-896x896.onnx export/base-896x896.onnx  # and whole networks
    python benchmarks/attention.py --json benchmarks/attention.jsonl

The two are interleaved frame by frame and medians are shown. A multiply-add counts as two operations. Networks are
compiled as by `mvde build --engine openvino:bf16`, except for the attention.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((12, 3136, 64), (12, 784, 64), (3, 3136, 64), (3, 784, 64))
"""Heads, tokens, depth: SigLIP-base and nano, at 896 and 448."""


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graphs", type=Path, nargs="*", help="exported ONNX graphs")
    parser.add_argument("--seconds", type=float, default=4.0, help="time budget per comparison")
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per comparison")
    arguments = parser.parse_args()
    require_kernel(parser)
    lines = [one_operator(size, arguments.seconds) for size in SIZES]
    lines += [network(graph, arguments.seconds) for graph in arguments.graphs]
    if arguments.json:
        from mvde.bench.host import describe_machine

        with arguments.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**line, "machine": describe_machine()}) + "\n" for line in lines)


def require_kernel(parser: argparse.ArgumentParser) -> None:
    """Exit with the reason if the kernel cannot run."""
    from mvde.engines.openvino.attention import unavailable
    from mvde.engines.openvino.library import library_version

    if reason := unavailable(library_version()):
        parser.error(f"mvde's attention cannot run here: {reason}")


def one_operator(size: tuple[int, int, int], seconds: float) -> dict[str, Any]:
    """Compare OpenVINO and mvde on one attention (heads, tokens, depth); returns latencies in ms and their ratio."""
    from mvde.engines.openvino.attention import replace_attention
    from mvde.engines.openvino.library import shared_core

    heads, tokens, depth = size
    core, options = shared_core(), {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    theirs, ours = attention_model(*size), attention_model(*size)
    replace_attention(core, ours)
    inputs = random_inputs((1, tokens, heads * depth))
    compiled = [core.compile_model(model, "CPU", options) for model in (theirs, ours)]
    requests = [model.create_infer_request() for model in compiled]
    medians, ratio = in_turns([lambda request=request: request.infer(inputs) for request in requests], seconds)
    gflop = 4 * heads * tokens**2 * depth / 1e9
    rates = [gflop / ms * 1e3 for ms in medians]
    print(
        f"{heads} heads, {tokens} tokens of {depth}: OpenVINO {medians[0]:.2f} ms ({rates[0]:.0f} GFLOP/s), "
        f"mvde {medians[1]:.2f} ms ({rates[1]:.0f} GFLOP/s), {ratio:.2f} times as fast"
    )
    names = ("openvino_ms", "mvde_ms", "ratio")
    return {"heads": heads, "tokens": tokens, "depth": depth, **dict(zip(names, (*medians, ratio), strict=True))}


def attention_model(heads: int, tokens: int, depth: int) -> Any:
    """Attention of bf16 tensors (1, tokens, heads * depth), as the exporter writes it."""
    from mvde.engines.openvino.library import openvino_library

    openvino = openvino_library()
    from openvino import opset13 as operators

    shape = openvino.Shape([1, tokens, heads * depth])
    inputs = [operators.parameter(shape, openvino.Type.bf16) for _ in range(3)]
    split = [
        operators.transpose(operators.reshape(one, [1, tokens, heads, depth], False), [0, 2, 1, 3])
        for one in (operators.convert(tensor, "f32") for tensor in inputs)
    ]
    node = operators.transpose(operators.scaled_dot_product_attention(*split, causal=False), [0, 2, 1, 3])
    joined = operators.reshape(node, [1, tokens, heads * depth], False)
    return openvino.Model([operators.convert(joined, "bf16")], inputs)


def random_inputs(shape: tuple[int, ...]) -> list[Any]:
    """Three bf16 tensors of normally distributed values."""
    from mvde.engines.openvino.library import openvino_library

    openvino = openvino_library()
    rng = np.random.default_rng(0)
    halves = [(rng.standard_normal(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16) for _ in range(3)]
    return [openvino.Tensor(half, openvino.Shape(shape), openvino.Type.bf16) for half in halves]


def network(graph: Path, seconds: float) -> dict[str, Any]:
    """Compare a whole network with OpenVINO's attention and mvde's; returns latencies in ms and their ratio."""
    from mvde.engines.base import BuildOptions, Graph
    from mvde.engines.openvino import attention
    from mvde.engines.openvino.compile import compile_graph
    from mvde.engines.openvino.engine import import_blob
    from mvde.precision import Precision

    with contextlib.ExitStack() as stack:
        models = []
        for kind in (attention.LIBRARYS, attention.OURS):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            options = BuildOptions(library={attention.OPTION: kind})
            written = compile_graph(Graph(graph), folder, Precision.BF16, options)
            models.append(import_blob(folder / written.file_names[0], written.options))
        shape = list(models[0].input(0).shape)
        image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        requests = [model.create_infer_request() for model in models]
        medians, ratio = in_turns([lambda request=request: request.infer([image]) for request in requests], seconds)
    print(f"{graph.name}: OpenVINO {medians[0]:.1f} ms, mvde {medians[1]:.1f} ms, {ratio:.2f} times as fast")
    return {"graph": graph.name, "openvino_ms": medians[0], "mvde_ms": medians[1], "ratio": ratio}


def in_turns(runs: Sequence[Callable[[], Any]], seconds: float) -> tuple[list[float], float]:
    """Median latencies in ms of two calls, interleaved, and the median over rounds of first / second."""
    for run in runs:
        run()
    rounds: list[list[float]] = []
    started = time.perf_counter()
    while len(rounds) < 5 or time.perf_counter() - started < seconds:
        times = []
        for run in runs:
            before = time.perf_counter()
            run()
            times.append((time.perf_counter() - before) * 1e3)
        rounds.append(times)
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return medians, statistics.median(first / second for first, second in rounds)


if __name__ == "__main__":
    main()
