"""Latency of mvde and of common alternatives: same weights, same photographs, end to end, interleaved.

    python benchmarks/peers.py --res 448                                        # the shipped model
    python benchmarks/peers.py --config configs/base.yaml --res 448             # SigLIP base, random weights
    python benchmarks/peers.py --model DIR --res 518x924 --isa avx2             # a model of transformers
    python benchmarks/peers.py --model DIR --res 518 --depth-anything-cpp LIBRARY --gguf FILE
    python benchmarks/peers.py --res 448 --json benchmarks/peers.jsonl

A frame takes a photograph in memory (uint8 RGB; with --model 1080 rows, cropped to the resolution's shape) to depth per
pixel and mean, variance and gradient per patch. The peers are PyTorch (eager and compiled, float32 and bf16 autocast),
a plain `torch.onnx.export` of the same model in ONNX Runtime and in OpenVINO with default settings, int8 of it by NNCF
in OpenVINO and by ONNX Runtime's static quantisation, and with --model the pipeline of transformers, each with the
usual pre- and post-processing; mvde is `DepthRuntime.infer`, and "mvde import" an engine of the plain export, as of a
foreign ONNX file. All are interleaved frame by frame. `ratio` is the median
over rounds of a peer's latency over that of mvde's fastest engine in the same round; `differs` is the mean difference
of the map from PyTorch float32, relative to its range (1st to 99th percentile).

--isa caps the instructions that oneDNN, MKL and PyTorch use (avx512: with VNNI, bf16 and fp16 where the CPU has them).
Where the CPU has more, contenders that cannot be capped are left out. Needs 'mvde[export]', a C++ compiler for
torch.compile, and nncf for its int8.

--depth-anything-cpp adds depth-anything.cpp, named with the stem of each --gguf. Its C API takes image files: its frame
writes the photograph to a PPM file in memory, and the call includes reading that, its own resizing and normalisation,
and the network. The map is resized and the statistics are computed as for ONNX Runtime. The GGUF sets the length of
the shorter side, which must be that of --res. --isa leaves it out if ggml was built for more instructions;
benchmarks/depth_anything_cpp.py says how to build it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from isa_caps import ISAS, left_out, missing, restart_capped

from mvde.engines.machine import cpu_features, cpu_name
from mvde.resolution import parse_resolution


def main() -> None:
    """Time every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, help="configuration for a model with random weights. Default: the shipped model"
    )
    parser.add_argument("--model", type=Path, help="folder of a depth model of transformers")
    parser.add_argument("--res", default="448")
    parser.add_argument("--isa", choices=tuple(ISAS), help="use these instructions at most. Default: all of the CPU")
    parser.add_argument(
        "--depth-anything-cpp", type=Path, metavar="LIBRARY", help="shared library of depth-anything.cpp, also a peer"
    )
    parser.add_argument(
        "--gguf", type=Path, action="append", default=[], help="the model's weights for depth-anything.cpp; repeatable"
    )
    parser.add_argument("--rounds", type=int, default=20, help="rounds to time; 0 only exports, builds and compiles")
    parser.add_argument("--folder", type=Path, help="keep graphs and engines in this folder and reuse them")
    parser.add_argument(
        "--skip", action="append", default=[], help="skip contenders whose name contains this; repeatable"
    )
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per contender")
    arguments = parser.parse_args()
    if bool(arguments.depth_anything_cpp) != bool(arguments.gguf) or (arguments.gguf and not arguments.model):
        parser.error("--depth-anything-cpp and --gguf need each other and --model")
    if arguments.isa:
        if lacks := missing(arguments.isa, cpu_features()):
            parser.error(
                f"--isa {arguments.isa}: {cpu_name()} has no {', '.join(lacks)}; name what it has, or leave it out"
            )
        restart_capped(arguments.isa)
        arguments.skip += left_out(arguments.isa, cpu_features())
    from contenders import engines, ggml_peers, peers, subject_of  # loads oneDNN, which reads its cap once

    resolution = parse_resolution(arguments.res)
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        subject = subject_of(arguments.model, arguments.config, resolution)
        images = camera_frames(resolution) if arguments.model else photographs()
        ggml = ggml_peers(subject, arguments.depth_anything_cpp, arguments.gguf, arguments.isa, stack)
        root = folder / "engines" / (arguments.isa or "uncapped")  # an engine is built for the instructions
        makers = {**peers(subject, folder, images), **ggml, **engines(subject, folder, root, stack)}
        frames = dict(opened(makers, images[0], arguments.skip))
        if arguments.rounds and not any(name.startswith("mvde") for name in frames):
            parser.error("no engine of mvde runs here, to which the others are ratios; see above, and leave out --skip")
        rows = compare(frames, images, arguments.rounds) if arguments.rounds else []
    title = f"{subject.name} {arguments.res}" + (f" {arguments.isa}" if arguments.isa else "")
    if rows:
        print_table(rows, title)
    if arguments.json and rows:
        store(arguments.json, rows, title, arguments.rounds)


def opened(makers: dict[str, Callable[[], Any]], image: np.ndarray, skipped: list[str]) -> Iterator[tuple[str, Any]]:
    """Contenders that work on this machine, warmed up; failures are reported on stderr."""
    for name, make in makers.items():
        if any(part in name for part in skipped):
            continue
        started = time.perf_counter()
        try:
            frame = make()
            frame(image)
            frame(image)
        except Exception as error:  # noqa: BLE001 - third-party libraries raise anything
            print(f"{name} does not run here: {' '.join(str(error).split())[:200]}", file=sys.stderr)
            continue
        print(f"{name}: ready after {time.perf_counter() - started:.1f} s", file=sys.stderr)
        yield name, frame


def photographs() -> list[np.ndarray]:
    """The shipped photographs, uint8 RGB (H, W, 3)."""
    from mvde.image import read_photographs

    return read_photographs()


def camera_frames(resolution: tuple[int, int]) -> list[np.ndarray]:
    """The shipped photographs, cropped to the shape of ``resolution`` (H, W) and resized to about 1080 rows."""
    from mvde.runtime.placement import Fit, fitted

    size = 1080, round(1080 * resolution[1] / resolution[0])
    return list(fitted(photographs(), size, Fit.CROP))


def compare(frames: dict[str, Any], images: list[np.ndarray], num_rounds: int) -> list[dict[str, Any]]:
    """One row per contender, fastest first."""
    names = list(frames)
    differs = {name: [] for name in names}
    times = np.zeros((num_rounds, len(names)))
    rng = np.random.default_rng(0)
    for index in range(num_rounds):
        image, depths = images[index % len(images)], {}
        for which in rng.permutation(len(names)):
            time.sleep(0.02)  # the previous contender's worker threads stop spinning
            started = time.perf_counter()
            depths[names[which]], _ = frames[names[which]](image)
            times[index, which] = time.perf_counter() - started
        reference = depths[names[0]]
        for name, depth in depths.items():
            low, high = np.percentile(reference, (1, 99))
            differs[name].append(np.mean(np.abs(depth - reference)) / (high - low))
    ours = [index for index, name in enumerate(names) if name.startswith("mvde")]
    best = min(ours, key=lambda index: float(np.median(times[:, index])))
    rows = [
        {
            "contender": name,
            "median_ms": round(float(np.median(times[:, index])) * 1e3, 2),
            "ratio": round(float(np.median(times[:, index] / times[:, best])), 3),
            "differs": float(f"{np.mean(differs[name]):.2e}"),
        }
        for index, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: row["median_ms"])


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """Print a Markdown table."""
    print(f"| {title} | ms | ratio | differs |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['contender']} | {row['median_ms']:.1f} | {row['ratio']:.2f}× | {row['differs']:.0e} |")


def store(path: Path, rows: list[dict[str, Any]], graph: str, num_rounds: int) -> None:
    """Append one JSON line per row, with the versions and the machine."""
    from mvde.bench.host import describe_machine
    from mvde.manifest import installed_versions

    tools = installed_versions(("torch", "transformers", "onnxruntime", "openvino", "nncf", "numpy", "pillow"))
    about = {"graph": graph, "num_rounds": num_rounds, "tools": tools, "machine": describe_machine()}
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps({**row, **about}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
