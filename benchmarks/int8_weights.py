"""Depth and CPU time of int8 graphs with weights of 8 and of 7 bits, in OpenVINO and ONNX Runtime.

    python benchmarks/int8_weights.py export/nano-192x192.onnx

Before VNNI, OpenVINO's products of 8 bits saturate. `differs` is the mean relative difference of depth from fp32 on
held-out crops of the shipped photographs, `as written` that from the graph's own arithmetic (ONNX Runtime with basic
optimisations). Times are CPU time of one thread, in turns. ONEDNN_MAX_CPU_ISA=AVX2 pretends a CPU without VNNI.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvde.artifact import find_onnx
from mvde.engines.base import Graph
from mvde.engines.onnxruntime.session import AS_WRITTEN, SessionSettings, open_session
from mvde.engines.openvino.library import shared_core
from mvde.export.precision import LowerOptions, lower_graph
from mvde.export.precision.images import default_images
from mvde.export.range_method import RangeMethod
from mvde.precision import Precision

NUM_IMAGES = 15
ONE_THREAD = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "PERFORMANCE_HINT": "LATENCY"}

Infer = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Lower the graph twice and print a row per graph and library."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, help="fp32 graph of mvde export")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    source = find_onnx(arguments.graph)
    images = default_images(source.manifest.resolution, NUM_IMAGES)[1].images
    with tempfile.TemporaryDirectory() as folder:
        graphs = {"fp32": source.path, **{f"{bits} bits": _lowered(source.path, folder, bits) for bits in (8, 7)}}
        written = {name: _onnxruntime(path, AS_WRITTEN) for name, path in graphs.items()}
        signed = SessionSettings(num_threads=1, takes_signed_int8=True)
        networks = {(name, "OpenVINO"): _openvino(path) for name, path in graphs.items()}
        networks |= {(name, "ONNX Runtime"): _onnxruntime(path, signed) for name, path in graphs.items()}
    reference = {name: _depths(infer, images) for name, infer in written.items()}
    times_ms = _take_turns(networks, images, arguments.rounds)
    print("| graph | library | differs | as written | ms of one thread | ratio |\n|---|---|---|---|---|---|")
    for which, ((name, library), infer) in enumerate(networks.items()):
        depth = _depths(infer, images)
        apart = [np.abs(depth / reference[other] - 1).mean() for other in ("fp32", name)]
        ratio = np.median(times_ms[:, which] / times_ms[:, 0])
        shares = " | ".join(f"{share:.2%}" for share in apart)
        print(f"| {name} | {library} | {shares} | {np.median(times_ms[:, which]):.1f} | {ratio:.2f} |")


def _lowered(path: Path, folder: str, bits: int) -> Path:
    """Int8 graph with min-max ranges and weights of so many bits."""
    options = LowerOptions(method=RangeMethod.MINMAX, weight_bits=bits)
    return lower_graph(Graph(path), Precision.INT8, Path(folder), options).path


def _openvino(path: Path) -> Infer:
    compiled = shared_core().compile_model(str(path), "CPU", ONE_THREAD)
    return lambda image: np.array(compiled(image[None])[0])


def _onnxruntime(path: Path, settings: SessionSettings) -> Infer:
    session = open_session(path, settings)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image[None]})[0]  # type: ignore[no-any-return]


def _depths(infer: Infer, images: np.ndarray) -> np.ndarray:
    return np.concatenate([infer(image) for image in images])


def _take_turns(networks: dict[tuple[str, str], Infer], images: np.ndarray, num_rounds: int) -> np.ndarray:
    """Milliseconds of CPU time, (rounds, networks)."""
    times_ms = np.zeros((num_rounds, len(networks)))
    for index, row in enumerate(times_ms):
        for which, infer in enumerate(networks.values()):
            started = time.process_time()
            infer(images[index % len(images)])
            row[which] = (time.process_time() - started) * 1e3
    return times_ms


if __name__ == "__main__":
    main()
