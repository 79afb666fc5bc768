"""Profile of an engine by operator type: calls, ms, share and GFLOP/s, from the backend's own counters.

    python benchmarks/profile_ops.py export/base-448x448.onnx                                # OpenVINO, bf16
    python benchmarks/profile_ops.py export/base-448x448.onnx --backend onnxruntime --precision fp32
    python benchmarks/profile_ops.py export/base-448x448.int8.onnx --precision int8          # typed graph
    python benchmarks/profile_ops.py export/nano-448x448.onnx --json benchmarks/profile_ops.jsonl

A multiply-add counts as two operations. Profiling adds a few per cent to a small model, so compare shares, not absolute
times. Attention that a backend decomposes or fuses into a generated kernel is identified by the names of the graph's
Attention nodes.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Op = tuple[str, str, float, float]
"""Type, implementation, milliseconds, operations."""


@dataclass(frozen=True)
class Row:
    """All executions of an operator type in a frame."""

    op: str
    how: str
    calls: int
    ms: float
    share: float
    gflop: float

    @property
    def gflop_per_s(self) -> float:
        """Speed in GFLOP/s; 0 for operators other than products."""
        return self.gflop / self.ms * 1e3 if self.ms else 0.0


def main() -> None:
    """Profile a graph and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, help="exported ONNX graph")
    parser.add_argument("--backend", choices=("openvino", "onnxruntime"), default="openvino")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16", "int8"), default="bf16")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--json", type=Path, help="append the table to this file as one JSON line")
    arguments = parser.parse_args()
    if arguments.backend == "onnxruntime" and arguments.precision != "fp32":
        parser.error("onnxruntime runs the graph unchanged, in fp32")
    profile = openvino_ops if arguments.backend == "openvino" else onnxruntime_ops
    frames, wall_ms = profile(arguments.graph, arguments.precision, arguments.frames)
    rows = table(frames)
    print_table(rows, wall_ms, f"{arguments.graph.stem}, {arguments.backend}:{arguments.precision}")
    if arguments.json:
        with arguments.json.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record(arguments, rows, wall_ms)) + "\n")


def table(frames: Sequence[Sequence[Op]]) -> list[Row]:
    """Rows by descending time, which is the median over frames of a type's total."""
    keys = list(dict.fromkeys((op, how) for frame in frames for op, how, _, _ in frame))
    rows = []
    for key in keys:
        chosen = [[entry for entry in frame if entry[:2] == key] for frame in frames]
        ms = float(np.median([sum(entry[2] for entry in frame) for frame in chosen]))
        rows.append((key, len(chosen[0]), ms, sum(entry[3] for entry in chosen[0]) / 1e9))
    total = sum(ms for _, _, ms, _ in rows)
    ordered = sorted(rows, key=lambda row: -row[2])
    return [Row(*key, calls, ms, ms / total, gflop) for key, calls, ms, gflop in ordered]


def print_table(rows: Sequence[Row], wall_ms: float, title: str) -> None:
    """Print the rows with a share of at least 0.2%."""
    gflop, busy_ms = sum(row.gflop for row in rows), sum(row.ms for row in rows)
    print(f"{title}: {wall_ms:.1f} ms a frame with counters, {busy_ms:.1f} ms in operators, {gflop:.1f} GFLOP")
    print(f"{'operator':28}{'executed by':34}{'calls':>6}{'ms':>10}{'share':>8}{'GFLOP':>9}{'GFLOP/s':>9}")
    for row in rows:
        if row.share >= 0.002:
            speed = f"{row.gflop_per_s:9.0f}" if row.gflop else f"{'':9}"
            print(f"{row.op:28}{row.how:34}{row.calls:6}{row.ms:10.2f}{row.share:8.1%}{row.gflop:9.2f}{speed}")


def record(arguments: argparse.Namespace, rows: Sequence[Row], wall_ms: float) -> dict[str, Any]:
    """The table as a JSON record, with the machine."""
    from mvde.bench.host import describe_machine

    ops = [
        {"op": row.op, "how": row.how, "calls": row.calls, "ms": round(row.ms, 3), "gflop": round(row.gflop, 3)}
        for row in rows
    ]
    engine = f"{arguments.backend}:{arguments.precision}"
    return {
        "graph": arguments.graph.stem, "engine": engine, "wall_ms": round(wall_ms, 2), "ops": ops,
        "machine": describe_machine(),
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------- backends


def openvino_ops(path: Path, precision: str, num_frames: int) -> tuple[list[list[Op]], float]:
    """Operators executed by OpenVINO in each frame, and the median latency in ms."""
    from mvde.engines.base import BuildOptions
    from mvde.engines.openvino.compile import compile_model
    from mvde.precision import Precision

    compiled, _, _ = compile_model(path, Precision(precision), BuildOptions(library={"PERF_COUNT": "YES"}))
    attention = attention_flops(path)
    about = {node.friendly_name: _openvino_node(node, attention) for node in compiled.get_runtime_model().get_ops()}
    request, image = compiled.create_infer_request(), _image(compiled.input(0).shape)
    frames, walls_ms = [], []
    for index in range(num_frames + 2):
        started = time.perf_counter()
        request.infer([image], share_inputs=True)
        if index >= 2:  # the first frames select kernels and allocate
            walls_ms.append((time.perf_counter() - started) * 1e3)
            frames.append([_openvino_op(entry, about) for entry in request.profiling_info if _ran(entry)])
    return frames, float(np.median(walls_ms))


def _ran(entry: Any) -> bool:
    return bool(entry.status.name == "EXECUTED" and entry.real_time.total_seconds() > 0)


def _openvino_node(node: Any, attention: dict[str, float]) -> tuple[str, float]:
    about = node.get_rt_info()
    kind = about["layerType"].astype(str)
    names = about["originalLayersNames"].astype(str).split(",") if "originalLayersNames" in about else []
    flops = sum(attention.get(name, 0.0) for name in names)
    if flops:
        return "Attention", flops
    inputs = [tuple(port.get_shape()) for port in node.inputs() if port.get_partial_shape().is_static]
    outputs = [tuple(port.get_shape()) for port in node.outputs() if port.get_partial_shape().is_static]
    return kind, product_flops(kind, inputs, outputs[0] if outputs else ())


def _openvino_op(entry: Any, about: dict[str, tuple[str, float]]) -> Op:
    kind, flops = about.get(entry.node_name, (entry.node_type, 0.0))
    return kind, entry.exec_type, entry.real_time.total_seconds() * 1e3, flops


def onnxruntime_ops(path: Path, precision: str, num_frames: int) -> tuple[list[list[Op]], float]:
    """Operators executed by ONNX Runtime on the CPU in each frame, and the median latency in ms."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    walls_ms = []
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        image = _image(session.get_inputs()[0].shape)
        for _ in range(num_frames + 2):
            started = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: image})
            walls_ms.append((time.perf_counter() - started) * 1e3)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ops = [_onnxruntime_op(event) for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]
    per_frame = len(ops) // (num_frames + 2)
    frames = [ops[start : start + per_frame] for start in range(2 * per_frame, len(ops), per_frame)]
    return frames, float(np.median(walls_ms[2:]))


def _onnxruntime_op(event: dict[str, Any]) -> Op:
    arguments = event["args"]
    inputs = [tuple(next(iter(entry.values()))) for entry in arguments.get("input_type_shape", ())]
    outputs = [tuple(next(iter(entry.values()))) for entry in arguments.get("output_type_shape", ())]
    kind = arguments["op_name"]
    flops = product_flops(kind, inputs, outputs[0] if outputs else ())
    return kind, arguments.get("provider", ""), event["dur"] / 1e3, flops


# ---------------------------------------------------------------------------------------------------- arithmetic


def product_flops(kind: str, inputs: Sequence[Shape], output: Shape) -> float:
    """Operations of one execution, two per multiply-add; 0 for operators other than products."""
    if len(inputs) < 2 or not output:
        return 0.0
    if kind in {"Convolution", "Conv", "FusedConv", "GroupConvolution"}:
        return 2.0 * math.prod(output) * math.prod(inputs[1][1:])
    if kind in {"Deconvolution", "ConvTranspose", "ConvolutionBackpropData"}:
        return 2.0 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if kind in {"FullyConnected", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}:
        return 2.0 * math.prod(output) * inputs[0][-1]
    if kind in {"Attention", "MultiHeadAttention"} and len(inputs[0]) == 4:
        batch, heads, rows, size = inputs[0]
        return 4.0 * batch * heads * rows * inputs[1][2] * size
    return 0.0


def attention_flops(path: Path) -> dict[str, float]:
    """Operations of every Attention node of a graph, by the node and output names that OpenVINO keeps."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False))
    shapes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in model.graph.value_info
    }
    found = {}
    for node in model.graph.node:
        if node.op_type == "Attention":
            flops = product_flops("Attention", [shapes[name] for name in node.input[:2]], shapes[node.output[0]])
            found.update(dict.fromkeys((node.name, node.output[0]), flops))
    return found


def _image(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, tuple(shape), np.uint8)


if __name__ == "__main__":
    main()
