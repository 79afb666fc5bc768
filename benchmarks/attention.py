"""Latency of mvde's attention kernels and OpenVINO's: single operators and whole networks.

    python benchmarks/attention.py                                                  # single operators
    python benchmarks/attention.py export/nano-896x896.onnx export/base-896x896.onnx  # and whole networks
    python benchmarks/attention.py --kernel avx2 --threads 1 export/nano-448x448.onnx  # fp32, CPU time of one thread
    python benchmarks/attention.py --kernel avx512 export/nano-448x448.onnx  # bf16, by AVX-512 without AMX
    python benchmarks/attention.py --json benchmarks/attention.jsonl

The two are interleaved frame by frame and medians are shown: of CPU time with one thread, which other work on the
machine disturbs less, otherwise of latency. A multiply-add counts as two operations. Networks are compiled as by
`mvde build --engine openvino:bf16` (kernels `amx`, `avx512`) or `openvino:fp32` (`avx2`), except for the attention.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((12, 3136, 64), (12, 784, 64), (3, 3136, 64), (3, 784, 64))
"""Heads, tokens, depth: SigLIP-base and nano, at 896 and 448."""


@dataclass(frozen=True)
class Watch:
    """What a comparison is timed with, in seconds, and for how many."""

    clock: Callable[[], float]
    seconds: float


def main() -> None:
    """Run the comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graphs", type=Path, nargs="*", help="exported ONNX graphs")
    parser.add_argument("--seconds", type=float, default=4.0, help="time budget per comparison")
    parser.add_argument(
        "--kernel", choices=("amx", "avx512", "avx2"), default="amx", help="mvde's kernel. Default: amx"
    )
    parser.add_argument("--threads", type=int, help="threads of both. Default: the library's choice")
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per comparison")
    arguments = parser.parse_args()
    kernel = required_kernel(arguments.kernel, parser)
    threads = {"INFERENCE_NUM_THREADS": str(arguments.threads)} if arguments.threads else {}
    watch = Watch(time.process_time if arguments.threads == 1 else time.perf_counter, arguments.seconds)
    lines = [one_operator(size, kernel, threads, watch) for size in SIZES]
    lines += [network(graph, kernel, threads, watch) for graph in arguments.graphs]
    if arguments.json:
        from mvde.bench.host import describe_machine

        with arguments.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**line, "machine": describe_machine()}) + "\n" for line in lines)


def required_kernel(name: str, parser: argparse.ArgumentParser) -> Any:
    """The kernel of that name; exit with the reason if it cannot run."""
    from mvde.engines.openvino.attention import KERNELS, unavailable
    from mvde.engines.openvino.library import library_version

    if reason := unavailable(KERNELS[name], library_version()):
        parser.error(f"{KERNELS[name].title} for attention cannot run here: {reason}")
    return KERNELS[name]


def one_operator(size: tuple[int, int, int], kernel: Any, threads: dict[str, str], watch: Watch) -> dict[str, Any]:
    """Compare OpenVINO and mvde on one attention (heads, tokens, depth); returns times in ms and their ratio."""
    from mvde.engines.openvino.attention_choice import Case, alone, random_inputs
    from mvde.engines.openvino.attention_graph import replace_attention
    from mvde.engines.openvino.library import shared_core

    heads, tokens, depth = size
    case = Case((1, tokens, heads, depth), depth**-0.5)
    core, options = shared_core(), {"INFERENCE_PRECISION_HINT": kernel.hint, "PERFORMANCE_HINT": "LATENCY", **threads}
    theirs, ours = alone(case, kernel.hint), alone(case, kernel.hint)
    replace_attention(core, ours, kernel)
    _, inputs = random_inputs(case, kernel.hint)
    compiled = [core.compile_model(model, "CPU", options) for model in (theirs, ours)]
    requests = [model.create_infer_request() for model in compiled]
    medians, ratio = in_turns([lambda request=request: request.infer(inputs) for request in requests], watch)
    gflop = 4 * heads * tokens**2 * depth / 1e9
    rates = [gflop / ms * 1e3 for ms in medians]
    print(
        f"{heads} heads, {tokens} tokens of {depth}: OpenVINO {medians[0]:.2f} ms ({rates[0]:.0f} GFLOP/s), "
        f"mvde {medians[1]:.2f} ms ({rates[1]:.0f} GFLOP/s), {ratio:.2f} times as fast"
    )
    names = ("openvino_ms", "mvde_ms", "ratio")
    about = {"kernel": kernel.name, "heads": heads, "tokens": tokens, "depth": depth}
    return {**about, **dict(zip(names, (*medians, ratio), strict=True))}


def network(graph: Path, kernel: Any, threads: dict[str, str], watch: Watch) -> dict[str, Any]:
    """Compare a whole network with OpenVINO's attention and mvde's; returns times in ms and their ratio."""
    from mvde.engines.base import BuildOptions, Graph
    from mvde.engines.openvino import attention
    from mvde.engines.openvino.compile import compile_graph
    from mvde.engines.openvino.engine import import_blob
    from mvde.precision import Precision

    with contextlib.ExitStack() as stack:
        models = []
        precision = {"bf16": Precision.BF16, "f32": Precision.FP32}[kernel.hint]
        for kind in (attention.LIBRARYS, kernel.name):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            options = BuildOptions(library={attention.OPTION: kind, **threads})
            written = compile_graph(Graph(graph), folder, precision, options)
            models.append(import_blob(folder / written.file_names[0], written.options))
        shape = list(models[0].input(0).shape)
        image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        requests = [model.create_infer_request() for model in models]
        medians, ratio = in_turns([lambda request=request: request.infer([image]) for request in requests], watch)
    print(f"{graph.name}: OpenVINO {medians[0]:.1f} ms, mvde {medians[1]:.1f} ms, {ratio:.2f} times as fast")
    return {
        "kernel": kernel.name,
        "graph": graph.name,
        "openvino_ms": medians[0],
        "mvde_ms": medians[1],
        "ratio": ratio,
    }


def in_turns(runs: Sequence[Callable[[], Any]], watch: Watch) -> tuple[list[float], float]:
    """Median times in ms of two calls, interleaved, and the median over rounds of first / second."""
    for run in runs:
        run()
    rounds: list[list[float]] = []
    started = time.perf_counter()
    while len(rounds) < 5 or time.perf_counter() - started < watch.seconds:
        times = []
        for run in runs:
            before = watch.clock()
            run()
            times.append((watch.clock() - before) * 1e3)
        rounds.append(times)
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return medians, statistics.median(first / second for first, second in rounds)


if __name__ == "__main__":
    main()
