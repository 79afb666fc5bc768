"""Latency of mvde and of common alternatives: same weights, same photographs, end to end, interleaved.

    python benchmarks/peers.py --res 448                                        # the shipped model
    python benchmarks/peers.py --config configs/base.yaml --res 448             # SigLIP base, random weights
    python benchmarks/peers.py --res 448 --json benchmarks/peers.jsonl

A frame takes a photograph in memory (uint8 RGB, native size) to depth per pixel and mean, variance and gradient per
patch. The peers are PyTorch (eager and compiled, float32 and bf16 autocast) and a plain `torch.onnx.export` of
the same model in ONNX Runtime and in OpenVINO with default settings, each with the usual pre- and post-processing in
PyTorch or NumPy; mvde is `DepthRuntime.infer`. All are interleaved frame by frame. `ratio` is the median over rounds of
a peer's latency over that of mvde's fastest engine in the same round; `differs` is the mean relative difference of
depth from PyTorch float32. Needs 'mvde[export]', and a C++ compiler for torch.compile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fold_ledger import load_model
from patch_stats import plain_numpy
from torch.nn import functional as F

from mvde.resolution import parse_resolution

Frame = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Photograph (H, W, 3) → depth (H, W) and statistics (N, 3)."""

PATCH = 16
ENGINES = ("openvino:bf16", "openvino:int8", "openvino:fp32", "onnxruntime:fp32")


def main() -> None:
    """Time every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", type=Path, help="configuration for a model with random weights. Default: the shipped model"
    )
    parser.add_argument("--res", default="448")
    parser.add_argument("--rounds", type=int, default=20, help="rounds to time; 0 only exports, builds and compiles")
    parser.add_argument("--folder", type=Path, help="keep graphs and engines in this folder and reuse them")
    parser.add_argument(
        "--skip", action="append", default=[], help="skip contenders whose name contains this; repeatable"
    )
    parser.add_argument("--json", type=Path, help="append the results to this file, one JSON line per contender")
    arguments = parser.parse_args()
    resolution = parse_resolution(arguments.res)
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        model = load_model(arguments.config).eval()
        makers = {**peers(model, resolution, folder), **engines(model, resolution, folder, stack)}
        frames = dict(opened(makers, arguments.skip))
        rows = compare(frames, arguments.rounds) if arguments.rounds else []
    print_table(rows, f"{model.config.name} {arguments.res}")
    if arguments.json and rows:
        store(arguments.json, rows, f"{model.config.name} {arguments.res}", arguments.rounds)


def opened(makers: dict[str, Callable[[], Frame]], skipped: list[str]) -> Iterator[tuple[str, Frame]]:
    """Contenders that work on this machine, warmed up; failures are reported on stderr."""
    image = photographs()[0]
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


# ------------------------------------------------------------------------------------------------------- contenders


def peers(model: Any, resolution: tuple[int, int], folder: Path) -> dict[str, Callable[[], Frame]]:
    """Factories of the peers, by name."""
    network = PlainModel(model).eval()
    compiled = torch.compile(network)
    path = folder / f"{model.config.name}-{resolution[0]}x{resolution[1]}.plain.onnx"
    export = partial(plain_export, network, resolution, path)
    return {
        "torch eager fp32": lambda: partial(torch_frame, network, resolution, False),
        "torch eager bf16 autocast": lambda: partial(torch_frame, network, resolution, True),
        "torch.compile fp32": lambda: partial(torch_frame, compiled, resolution, False),
        "torch.compile bf16 autocast": lambda: partial(torch_frame, compiled, resolution, True),
        "torch.onnx.export, ONNX Runtime": lambda: plain_onnxruntime(export(), resolution),
        "torch.onnx.export, OpenVINO": lambda: plain_openvino(export(), resolution),
    }  # fmt: skip


def engines(
    model: Any, resolution: tuple[int, int], folder: Path, stack: contextlib.ExitStack
) -> dict[str, Callable[[], Frame]]:
    """Factories of mvde's runtimes, one per engine that works on this machine."""
    from mvde.engines.base import EngineId
    from mvde.engines.store import support

    ids = [EngineId.parse(text) for text in ENGINES]
    works = [engine_id for engine_id in ids if support(engine_id).works]
    return {f"mvde {one}": partial(runtime_frame, model, resolution, one, folder, stack) for one in works}


class PlainModel(torch.nn.Module):
    """The bare network, as usually exported: normalised float pixels (1, 3, H, W) to depth (1, H, W)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Depth of normalised pixels."""
        depth: torch.Tensor = self.model.depth_from_pixels(pixels)
        return depth


@torch.inference_mode()
def torch_frame(
    network: torch.nn.Module, resolution: tuple[int, int], autocast: bool, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frame in PyTorch: resize, normalise, infer, resize back, statistics."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, size=resolution, mode="bilinear", antialias=True, align_corners=False)
    pixels = (pixels - 0.5) / 0.5
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        depth = network(pixels)
    depth = depth.float()
    full = F.interpolate(depth[None], size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    return full.numpy(), plain_numpy(depth.numpy(), PATCH)[0]


def numpy_frame(
    infer: Callable[[np.ndarray], np.ndarray], resolution: tuple[int, int], image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frame without PyTorch: Pillow resizes, NumPy does the rest."""
    from PIL import Image

    small = Image.fromarray(image).resize(resolution[::-1], Image.Resampling.BILINEAR)
    pixels = (np.asarray(small, np.float32) / 255 - 0.5) / 0.5
    depth = infer(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
    full = Image.fromarray(depth[0]).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    return np.asarray(full), plain_numpy(depth, PATCH)[0]


def plain_export(network: torch.nn.Module, resolution: tuple[int, int], path: Path) -> Path:
    """File written by `torch.onnx.export` with default settings; reused if it exists."""
    if not path.exists():
        example = torch.zeros(1, 3, *resolution)
        torch.onnx.export(network, (example,), str(path), dynamo=True, verbose=False)
    return path


def plain_onnxruntime(path: Path, resolution: tuple[int, int]) -> Frame:
    """Frame of ONNX Runtime with default settings."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return partial(numpy_frame, lambda pixels: session.run(None, {name: pixels})[0], resolution)


def plain_openvino(path: Path, resolution: tuple[int, int]) -> Frame:
    """Frame of OpenVINO with default settings: bf16 where the CPU supports it."""
    from mvde.engines.openvino.library import openvino_library

    compiled = openvino_library().compile_model(str(path), "CPU")
    return partial(numpy_frame, lambda pixels: compiled(pixels)[0], resolution)


def runtime_frame(
    model: Any, resolution: tuple[int, int], engine_id: Any, folder: Path, stack: contextlib.ExitStack
) -> Frame:
    """Frame of `DepthRuntime.infer`; exports and builds the engine if it is missing."""
    from mvde import DepthRuntime
    from mvde.artifact import artifact_stem, find_onnx
    from mvde.engines.build import build_engine
    from mvde.engines.store import engine_folder
    from mvde.export.onnx import export_onnx
    from mvde.export.precision import lowerer
    from mvde.export.precision.images import lower_options
    from mvde.image import read_photographs
    from mvde.resampling import Resampling
    from mvde.runtime.placement import Fit, fitted

    graph = folder / "export" / f"{artifact_stem(model.config.name, resolution)}.onnx"
    if not graph.exists():
        export_onnx(model, [resolution], folder / "export")
    source = find_onnx(graph)
    target = engine_folder(source.manifest, engine_id, folder / "engines")
    if not target.is_dir():
        resampling = Resampling.of(source.manifest.preprocess)
        images = fitted(read_photographs()[:1], resolution, Fit.CROP, resampling)
        lowered = lowerer(source, lower_options(source.manifest))
        build_engine(source, engine_id, images, root=folder / "engines", lower_graph=lowered)
    runtime = stack.enter_context(DepthRuntime.load(target))

    def frame(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = runtime.infer(image)
        return result.depth, result.stats

    return frame


def photographs() -> list[np.ndarray]:
    """The shipped photographs, uint8 RGB (H, W, 3)."""
    from mvde.image import read_photographs

    return read_photographs()


# ------------------------------------------------------------------------------------------------------------- table


def compare(frames: dict[str, Frame], num_rounds: int) -> list[dict[str, Any]]:
    """One row per contender, fastest first."""
    images, names = photographs(), list(frames)
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
            differs[name].append(np.mean(np.abs(depth - reference) / np.abs(reference)))
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

    tools = installed_versions(("torch", "onnxruntime", "openvino", "numpy", "pillow"))
    about = {"graph": graph, "num_rounds": num_rounds, "tools": tools, "machine": describe_machine()}
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps({**row, **about}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
