"""Train the nano model on a GPU that also renders its frames, in a few minutes; nothing is stored but the weights.

    python bin/nano_gpu.py --out runs/nano-gpu                    # configs/nano-gpu.yaml in six minutes
    python bin/nano_gpu.py --small --out /tmp/nano-gpu            # seconds, on any machine: whether all is there
    python bin/nano_gpu.py --kit kit --out runs/nano-gpu          # what bin/nano_gpu_kit.py collected is in kit/

The schedule is measured and shortened to fit, then run; weights (`nano.safetensors`, fp16, 6 MB, and others) and
`metrics.jsonl` are written as they come. Without a GPU the same runs on the CPU with Mesa's renderer.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_OPTIMISER = 1.4
"""Time of a step over that of its forward and backward passes: optimisers, averages and copies. An allowance: the
deadline ends the run whatever it takes."""

_SHARE_FOR_STEPS = 0.85
"""Share of the minutes that is planned for steps; the rest is for start, validation and saving."""


def main() -> int:
    """Measure, fit the schedule, train; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano-gpu.yaml")
    parser.add_argument("--out", type=Path, required=True, help="run folder: weights, metrics.jsonl")
    parser.add_argument("--minutes", type=float, default=6.0, help="of the whole run, start included")
    parser.add_argument("--workers", type=int, help="rendering processes; default: the configuration's")
    parser.add_argument("--kit", type=Path, help="folder of bin/nano_gpu_kit.py: textures and OpenGL loaders")
    parser.add_argument("--photographs", type=Path, help="folder of photographs for textures, with LICENSES.md")
    parser.add_argument("--small", action="store_true", help="a few steps of tiny batches, to see whether all is there")
    arguments = parser.parse_args()
    started = time.monotonic()
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's renderer on a CPU: one thread in each worker
    if arguments.kit is not None:
        use_loaders(arguments.kit)
    from mvde.errors import MvdeError

    try:
        return train(arguments, started)
    except MvdeError as error:
        print(f"nano_gpu: error: {error}", file=sys.stderr)
        return error.exit_code


def train(arguments: argparse.Namespace, started: float) -> int:
    """Train as :func:`main` says."""
    import torch

    from mvde.config import load_config
    from mvde.pipelines.rendered_training import RenderedTraining, fitted_to

    if arguments.workers is None or arguments.workers > 0:
        multiprocessing.set_start_method("spawn", force=True)  # an OpenGL context does not survive a fork
    config = load_config(arguments.config)
    if arguments.small:
        config = small(config)
    workers = config.train.num_workers if arguments.workers is None else arguments.workers
    autocast = config.train.autocast if torch.cuda.is_available() else "none"  # CPUs without AMX emulate bf16
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, num_workers=workers, autocast=autocast)
    )
    config = named(config, arguments)
    seconds = [step_seconds(config, number) for number in range(len(config.train.all_stages()))]
    print(f"seconds a step: {', '.join(f'{value:.3f}' for value in seconds)}", flush=True)
    limit_s = arguments.minutes * 60 - (time.monotonic() - started)
    if not arguments.small:
        config = fitted_to(config, seconds, limit_s * _SHARE_FOR_STEPS)
    plan = ", ".join(f"{stage.steps} steps at {stage.res[0]}" for stage in config.train.all_stages())
    print(f"{plan}; {limit_s:.0f} s are left", flush=True)
    run = RenderedTraining(config, limit_s=max(10.0, limit_s - 10.0))
    result = run.train(arguments.out)
    print(f"{arguments.out}: step {result.step} of {result.num_steps}; {result.metrics}")
    return 0


def small(config: Any) -> Any:
    """The same configuration with two steps of two frames of 48 x 64 pixels in each kind of stage."""
    kinds = {stage.supervise: stage for stage in config.train.all_stages()}
    stages = tuple(
        dataclasses.replace(stage, steps=2, batch_size=2, res=("48x64",), data="rendered:64")
        for stage in kinds.values()
    )
    train = dataclasses.replace(
        config.train, stages=stages, num_workers=1, warmup_steps=1, decay_steps=2, log_every=1, start="random"
    )
    return dataclasses.replace(config, train=train, data=dataclasses.replace(config.data, val="rendered:64"))


def named(config: Any, arguments: argparse.Namespace) -> Any:
    """The configuration with seed, textures and photographs in the names of its data sets, and a set to validate on."""
    given = {"seed": str(config.train.seed)}
    if arguments.kit is not None:
        given["textures"] = str((arguments.kit / "textures.npz").resolve())
    if arguments.photographs is not None:
        given["photographs"] = str(arguments.photographs.resolve())
    query = urlencode(given)
    stages = tuple(
        dataclasses.replace(stage, data=f"{stage.data or config.data.train}?{query}")
        for stage in config.train.all_stages()
    )
    length = 4 if arguments.small else 64
    data = dataclasses.replace(
        config.data,
        train=f"{config.data.train}?{query}",
        val=f"{config.data.val}?{query}&split=val&length={length}",
    )
    return dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, stages=stages))


def step_seconds(config: Any, number: int) -> float:
    """Seconds of a step of a stage: the slower of computing it and of rendering its frames in all workers."""
    import torch

    from mvde.datasets.formats import open_dataset
    from mvde.datasets.synth.varied import VIEWS_PER_SCENE
    from mvde.model import DepthModel
    from mvde.resolution import parse_resolution

    stage = config.train.all_stages()[number]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = DepthModel(config).to(device).train()
    images = torch.rand(stage.batch_size, 3, *parse_resolution(stage.res[0]), device=device)
    times = []
    for _ in range(2 if device.type == "cpu" else 6):
        begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.autocast == "bf16"):
            model(images).float().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    computed = _OPTIMISER * statistics.median(times[len(times) // 2 :])
    frames = open_dataset(config.data.format, stage.data)
    frames[0]  # makes the context
    begun = time.perf_counter()
    for index in range(VIEWS_PER_SCENE, 2 * VIEWS_PER_SCENE):
        frames[index]
    per_frame = (time.perf_counter() - begun) / VIEWS_PER_SCENE
    return max(computed, per_frame * stage.batch_size / max(1, config.train.num_workers))


def use_loaders(kit: Path) -> None:
    """Point moderngl at the kit's OpenGL loaders, and the loader at NVIDIA's driver where there is one."""
    import ctypes

    libraries = kit.resolve() / "lib"
    dispatch = libraries / "libGLdispatch.so.0"
    if dispatch.is_file():
        ctypes.CDLL(str(dispatch), mode=ctypes.RTLD_GLOBAL)  # the two others need it, by this name
        path = os.environ.get("LD_LIBRARY_PATH")  # for the workers, which start anew
        os.environ["LD_LIBRARY_PATH"] = f"{libraries}:{path}" if path else str(libraries)
    for variable, name in (("GLCONTEXT_LINUX_LIBGL", "libOpenGL.so.0"), ("GLCONTEXT_LINUX_LIBEGL", "libEGL.so.1")):
        if (libraries / name).is_file():
            os.environ.setdefault(variable, str(libraries / name))
    vendor = libraries.parent / "10_nvidia.json"
    if vendor.is_file() and any(Path(folder, "libEGL_nvidia.so.0").exists() for folder in library_folders()):
        os.environ.setdefault("__EGL_VENDOR_LIBRARY_FILENAMES", str(vendor))


def library_folders() -> list[str]:
    """Folders where a driver's libraries are looked for."""
    given = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [*filter(None, given), "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/nvidia/lib64"]


if __name__ == "__main__":
    sys.exit(main())
