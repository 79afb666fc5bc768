"""Whole networks in ONNX Runtime with attention in each form, beside a plain export: CPU time of one thread.

    python benchmarks/onnxruntime_attention.py export/nano-448x448.onnx --plain nano-448x448.plain.onnx

CPU time of one thread, in turns, does not suffer from other work on the machine; it leaves out how a form is shared
between threads, which `mvde build` measures. The plain export is what `benchmarks/peers.py --folder` leaves there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mvde.engines.onnxruntime.attention import NAMES, Form
from mvde.engines.onnxruntime.rewrite import rewritten
from mvde.engines.onnxruntime.session import SessionSettings, open_session


def main() -> None:
    """Print a row per form: median milliseconds, and the median over rounds of the ratio to the fused form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, help="fp32 graph of mvde export")
    parser.add_argument("--plain", type=Path, help="plain torch.onnx.export of the same model")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    settings = SessionSettings(num_threads=1, is_spinning=False)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {NAMES[form]: open_session(_written(arguments.graph, Path(folder), form), settings) for form in Form}
    if arguments.plain:
        sessions["torch.onnx.export"] = open_session(arguments.plain, settings)
    times_ms = _take_turns(sessions, arguments.rounds)
    ratios = times_ms / times_ms[:, :1]
    print(f"| {arguments.graph.stem} | ms of one thread | ratio |\n|---|---|---|")
    for name, time_ms, ratio in zip(sessions, np.median(times_ms, axis=0), np.median(ratios, axis=0), strict=True):
        print(f"| {name} | {time_ms:.1f} | {ratio:.2f} |")


def _written(graph: Path, folder: Path, form: Form) -> Path:
    """The graph with its attentions in a form."""
    target = folder / f"{form.value}.onnx"
    rewritten(graph, target, form)
    return target


def _take_turns(sessions: dict[str, Any], num_rounds: int) -> np.ndarray:
    """Milliseconds of the calling thread, (rounds, sessions)."""
    rng = np.random.default_rng(0)
    feeds = []
    for session in sessions.values():
        node = session.get_inputs()[0]
        values = rng.integers(0, 256, node.shape) if "uint8" in node.type else rng.standard_normal(node.shape)
        feeds.append({node.name: values.astype(np.uint8 if "uint8" in node.type else np.float32)})
        session.run(None, feeds[-1])  # the first run allocates
    times_ms = np.zeros((num_rounds, len(sessions)))
    for row in times_ms:
        for which, session in enumerate(sessions.values()):
            started = time.thread_time()
            session.run(None, feeds[which])
            row[which] = (time.thread_time() - started) * 1e3
    return times_ms


if __name__ == "__main__":
    main()
