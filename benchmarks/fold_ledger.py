"""Speed-up of an engine by each graph rewrite rule of `mvde.export.fold`, alone and together.

    python benchmarks/fold_ledger.py --res 448                                                  # the shipped model
    python benchmarks/fold_ledger.py --config configs/base.yaml --res 448 --engine openvino:bf16
    python benchmarks/fold_ledger.py --res 448 --json benchmarks/fold_ledger.jsonl

The graph is traced once. Variants: normalisation folded into the patch embedding only (`plain`), `plain` with one more
rule each, the default rules, and all rules. They are interleaved frame by frame; a gain is the median over rounds of
plain time / variant time in that round, which makes it robust to machine noise. Above 1 is faster; the spread is the
interquartile range over rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvde.export.fold import DEFAULT_RULES, RULES, fold_graph
from mvde.resolution import parse_resolution

PLAIN = ("affine-into-conv", "unused")
Frame = Callable[[], object]


def main() -> None:
    """Measure the rules on every engine and print the gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, help="configuration for a model with random weights. Default: the shipped model"
    )
    parser.add_argument("--late", action="store_true", help="project after upsampling, as other DPT decoders do")
    parser.add_argument("--res", default="448")
    parser.add_argument("--opset", type=int, default=23)
    parser.add_argument(
        "--engine", action="append", help="openvino:bf16, openvino:fp32 or onnxruntime:fp32; repeatable"
    )
    parser.add_argument("--rule", action="append", help="measure only this rule; repeatable. Default: every rule")
    parser.add_argument("--rounds", type=int, default=30, help="rounds to time; 0 only writes the graphs")
    parser.add_argument("--folder", type=Path, help="keep the graphs in this folder and reuse them")
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per engine")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        graphs, applied = variants(arguments, folder)
        if arguments.rule:
            graphs = {name: path for name, path in graphs.items() if name in {"plain", *arguments.rule}}
        for engine in (arguments.engine or ("openvino:bf16", "onnxruntime:fp32")) if arguments.rounds else ():
            entry = {"graph": f"{name_of(arguments)} {arguments.res}", "engine": engine, "opset": arguments.opset}
            entry |= {**measure(graphs, engine, arguments.rounds), "applied": applied}
            report(entry)
            if arguments.json:
                from mvde.bench.host import describe_machine

                with arguments.json.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({**entry, "machine": describe_machine()}) + "\n")


def name_of(arguments: argparse.Namespace) -> str:
    """Name of the model, for files and reports."""
    return (arguments.config.stem if arguments.config else "nano") + ("-late" if arguments.late else "")


def variants(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Path], dict[str, int]]:
    """Paths of the variants by name, and how often each rule matched on its own; reuses existing files."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / f"{name_of(arguments)}-{arguments.res}.opset{arguments.opset}.json"
    if not index.exists():
        if arguments.late:
            project_late()
        index.write_text(json.dumps(write_variants(load_model(arguments.config), arguments, folder)))
    files, applied = json.loads(index.read_text())
    return {name: folder / file for name, file in files.items()}, applied


def load_model(config: Path | None) -> Any:
    """The shipped model, or a configuration's model with random weights."""
    from mvde.assets import shipped_checkpoint
    from mvde.model import DepthModel

    if config is None:
        return DepthModel.load(shipped_checkpoint())
    from mvde.cli.export import _untrained_model

    return _untrained_model(config)


def project_late() -> None:
    """Make the decoder upsample before it projects, as the DPT paper and transformers do."""
    from mvde.heads import dpt_decoder

    def forward(self: Any, coarse: Any, lateral: Any, size: tuple[int, int]) -> Any:
        merged = lateral if coarse is None or self.lateral is None else coarse + self.lateral(lateral)
        return self.project(dpt_decoder.enlarge(self.refine(merged), size))

    dpt_decoder.Fusion.forward = forward


def write_variants(model: Any, arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Write the variants; returns file names by variant, and how often each rule matched on its own."""
    import onnx_ir as ir

    from mvde.export.torch_graph import traced

    stem = f"{name_of(arguments)}-{arguments.res}.opset{arguments.opset}"
    source = folder / f"{stem}.traced.onnx"
    with traced(model, parse_resolution(arguments.res), opset=arguments.opset, rules=()) as graph:
        ir.save(graph, source)
    wanted = {"plain": PLAIN, **{rule: (*PLAIN, rule) for rule in RULES if rule not in PLAIN}}
    wanted |= {"default": DEFAULT_RULES, "all": tuple(RULES)}
    files, applied = {}, {}
    for name, rules in wanted.items():
        graph = ir.load(source)
        counts = fold_graph(graph, rules)
        if name in RULES:
            applied[name] = counts[name]
            if not counts[name]:
                continue
        files[name] = f"{stem}.{name}.onnx"
        ir.save(graph, folder / files[name])
    source.unlink()
    return files, applied


def measure(graphs: dict[str, Path], engine: str, num_rounds: int) -> dict[str, Any]:
    """Latency of the plain graph in ms, and the median and quartiles of every variant's gain."""
    backend, precision = engine.split(":")
    openers = {"openvino": open_openvino, "onnxruntime": open_onnxruntime}
    frames = {name: openers[backend](path, precision) for name, path in graphs.items()}
    times = interleaved(list(frames.values()), num_rounds)
    plain, *others = times.T
    gains = {
        name: [round(float(q), 4) for q in np.quantile(plain / other, (0.5, 0.25, 0.75))]
        for name, other in zip(list(frames)[1:], others, strict=True)
    }
    return {"plain_ms": round(float(np.median(plain)) * 1e3, 3), "num_rounds": num_rounds, "gain": gains}


def interleaved(frames: Sequence[Frame], num_rounds: int) -> np.ndarray:
    """Seconds (rounds, variants); each round runs every variant once, in random order."""
    rng = np.random.default_rng(0)
    times = np.zeros((num_rounds, len(frames)))
    for frame in frames:
        frame()
        frame()
    for index in range(num_rounds):
        for which in rng.permutation(len(frames)):
            started = time.perf_counter()
            frames[which]()
            times[index, which] = time.perf_counter() - started
    return times


def open_openvino(path: Path, precision: str) -> Frame:
    """Frame of a graph in OpenVINO, on random pixels."""
    from mvde.engines.base import BuildOptions
    from mvde.engines.openvino.compile import compile_model
    from mvde.precision import Precision

    compiled, _, _ = compile_model(path, Precision(precision), BuildOptions())  # as `mvde build` compiles it
    request, image = compiled.create_infer_request(), _image(compiled.input(0).shape)
    return lambda: request.infer([image], share_inputs=True)


def open_onnxruntime(path: Path, precision: str) -> Frame:
    """Frame of a graph in ONNX Runtime on the CPU, on random pixels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads of the other sessions would spin on the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = {session.get_inputs()[0].name: _image(session.get_inputs()[0].shape)}
    return lambda: session.run(None, image)


def _image(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, tuple(shape), np.uint8)


def report(entry: dict[str, Any]) -> None:
    """Print an engine's gains, one line per variant."""
    print(f"{entry['graph']}, {entry['engine']}: plain {entry['plain_ms']} ms, {entry['num_rounds']} rounds")
    for name, (gain, low, high) in entry["gain"].items():
        times = f"{entry['applied'].get(name, '')}x" if name in entry["applied"] else ""
        print(f"  {name:24}{times:>5}  {gain:.3f}  [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
