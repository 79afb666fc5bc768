"""What each of mvde's forms of an OpenVINO network gains: CPU time of one thread, in turns.

    python benchmarks/openvino_forms.py export/nano-448x448.onnx
    python benchmarks/openvino_forms.py export/nano-448x448.onnx --int8 export/nano-448x448.int8-w7.onnx --rounds 20

Rows are added one by one: the graph as OpenVINO takes it, GELU by a sigmoid, mvde's attention, then the int8 graph with
the library's linear layers and with mvde's. Every ratio is the median over rounds against the first row, because other
work on the machine changes the speed of both. The forms are those of fp32 arithmetic on CPUs with AVX2.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ONE_THREAD = {"INFERENCE_NUM_THREADS": "1"}


def main() -> None:
    """Measure the forms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, help="exported fp32 ONNX graph")
    parser.add_argument("--int8", type=Path, help="the same graph with int8 products and weights of 7 bits")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    requests = forms(arguments.graph, arguments.int8)
    shape = tuple(next(iter(requests.values())).get_input_tensor(0).shape)
    times_ms = in_turns(requests, np.random.default_rng(0).integers(0, 256, shape, np.uint8), arguments.rounds)
    print(f"{arguments.graph.stem}, CPU time of one thread, {arguments.rounds} rounds")
    for name, column in zip(requests, times_ms.T, strict=True):
        ratio = float(np.median(times_ms[:, 0] / column))
        print(f"{name:44}{np.median(column):9.1f} ms{ratio:8.3f} times as fast as the first")


def forms(graph: Path, int8: Path | None) -> dict[str, Any]:
    """An inference request per row of the table, by its name."""
    from mvde.engines.openvino import attention, int8_linear
    from mvde.precision import Precision

    theirs, ours = {attention.OPTION: attention.LIBRARYS}, {attention.OPTION: attention.AVX2.name}
    found = {
        "fp32, as OpenVINO takes the graph": request(graph, Precision.FP32, theirs, gelu=False),
        "fp32, GELU by a sigmoid": request(graph, Precision.FP32, theirs, gelu=True),
        "fp32, and mvde's attention": request(graph, Precision.FP32, ours, gelu=True),
    }
    if int8 is not None:
        for name, kind in (("OpenVINO's", int8_linear.LIBRARYS), ("mvde's", int8_linear.OURS)):
            settings = {**ours, int8_linear.OPTION: kind}
            found[f"int8, {name} linear layers"] = request(int8, Precision.INT8, settings, gelu=True)
    return found


def request(path: Path, precision: Any, settings: dict[str, str], *, gelu: bool) -> Any:
    """Compile a graph for one thread; ``settings`` choose the operators, ``gelu`` the form of GELU."""
    from mvde.engines.base import BuildOptions
    from mvde.engines.openvino import compile as compiling

    with mock.patch("mvde.engines.openvino.gelu.is_default", return_value=gelu):
        compiled, _, _ = compiling.compile_model(path, precision, BuildOptions(library={**ONE_THREAD, **settings}))
    return compiled.create_infer_request()


def in_turns(requests: dict[str, Any], image: np.ndarray, num_rounds: int) -> np.ndarray:
    """Milliseconds of CPU time, (rounds, requests), after a round that is not counted."""
    times_ms = np.zeros((num_rounds + 1, len(requests)))
    for row in times_ms:
        for which, one in enumerate(requests.values()):
            started = time.process_time()
            one.infer([image], share_inputs=True)
            row[which] = (time.process_time() - started) * 1e3
    return times_ms[1:]


if __name__ == "__main__":
    main()
