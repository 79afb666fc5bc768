"""Memory over many frames, in Python and in C++: a leak is an error.

    python benchmarks/soak.py engines/nano-192x192-openvino-fp32 --native build/native/tests/cpp/soak

Each of the two runs in a process of its own: the runtime (`DepthRuntime.infer`: resizing, network, depth at the frame's
size, statistics) and a session of libmvde, on frames of 480x640. What the process needs is read after a warm-up, in the
middle and at the end: resident and proportional size, anonymous memory, file descriptors and threads. The run fails
where the anonymous memory has grown by more than --max-growth from the warm-up to the end, or where there are more
descriptors or threads than after the warm-up. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (480, 640)
NUM_PICTURES = 8
WARM_UP = 500
"""Frames until allocators and thread pools have what they keep."""
MAX_GROWTH_KB = 4096
"""Over 20,000 frames: 210 bytes for each. A result that is kept would be 1.2 MB for each."""

State = dict[str, float]


def main() -> int:
    """Run both soaks, print their table, and return 1 if memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path, help="folder of a built OpenVINO engine")
    parser.add_argument("--native", type=Path, help="the program of tests/cpp/soak.cpp; without it, Python alone")
    parser.add_argument("--frames", type=int, default=20_000, help="frames of each run after the warm-up")
    parser.add_argument("--max-growth", type=int, default=MAX_GROWTH_KB, help="anonymous memory in kB")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_here(arguments.engine, arguments.frames)
        return 0
    commands = {
        "Python": [sys.executable, __file__, str(arguments.engine), "--child", "--frames", str(arguments.frames)]
    }
    if arguments.native:
        commands["C++"] = [str(arguments.native), str(arguments.engine), str(arguments.frames), str(WARM_UP)]
    print("| run | frames | resident, MiB | proportional, MiB | anonymous, MiB | descriptors | threads | ms a frame |")
    print("|---|---|---|---|---|---|---|---|")
    complaints: list[str] = []
    for name, command in commands.items():
        states = states_of(command)
        print("\n".join(rows(name, states)), flush=True)
        complaints += [f"{name}: {text}" for text in faults(states, arguments.max_growth)]
    for text in complaints:
        print(text, file=sys.stderr)
    return 1 if complaints else 0


def states_of(command: Sequence[str]) -> list[State]:
    """What a run printed after its warm-up, in the middle and at the end."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def faults(states: Sequence[State], max_growth_kb: int) -> list[str]:
    """What grew over the run."""
    first, last = states[0], states[-1]
    found = []
    growth = last["anonymous_kb"] - first["anonymous_kb"]
    if growth > max_growth_kb:
        found.append(f"anonymous memory grew by {growth:.0f} kB, more than the {max_growth_kb} kB that are allowed")
    found += [
        f"{last[kind]:.0f} {kind}, {first[kind]:.0f} after the warm-up"
        for kind in ("descriptors", "threads")
        if last[kind] > first[kind]
    ]
    return found


def rows(name: str, states: Sequence[State]) -> list[str]:
    """Rows of the table, one per state."""
    lines, before = [], states[0]
    for state in states:
        sizes = " | ".join(f"{state[kind] / 1024:.1f}" for kind in ("rss_kb", "pss_kb", "anonymous_kb"))
        frames = state["frames"] - before["frames"]
        pace = f"{(state['seconds'] - before['seconds']) / frames * 1e3:.2f}" if frames else ""
        counts = f"{state['descriptors']:.0f} | {state['threads']:.0f}"
        lines.append(f"| {name} | {state['frames']:.0f} | {sizes} | {counts} | {pace} |")
        before = state
    return lines


def run_here(engine: Path, num_frames: int) -> None:
    """Run the frames in this process and print its state three times."""
    from mvde.runtime.depth import DepthRuntime

    pictures = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, *SIZE, 3), np.uint8)
    with DepthRuntime.load(engine) as runtime:
        result = runtime.infer(pictures[0])
        for done in range(WARM_UP + num_frames + 1):
            if done in (WARM_UP, WARM_UP + num_frames // 2, WARM_UP + num_frames):
                print(json.dumps(state(done - WARM_UP, float(result.stats[0, 0]))), flush=True)
            result = runtime.infer(pictures[done % NUM_PICTURES])


def state(frames: int, mean: float) -> dict[str, Any]:
    """Memory of this process in kB, its descriptors and threads."""
    memory = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        kind, size, *_ = line.split()
        memory[kind.rstrip(":")] = int(size)
    return {
        "frames": frames,
        "rss_kb": memory["Rss"],
        "pss_kb": memory["Pss"],
        "anonymous_kb": memory["Anonymous"],
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - Path keeps one open
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "seconds": time.monotonic(),
        "mean": mean,
    }


if __name__ == "__main__":
    sys.exit(main())
