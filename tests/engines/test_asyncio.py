"""An event loop in a program that has run inference: children, executors and signals, in ten seconds each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LIMIT_S = 10

PROGRAM = """
import asyncio, multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from mvde.runtime.depth import DepthRuntime

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)

def infer(folder):
    with DepthRuntime.load(folder) as runtime:
        return runtime.infer(IMAGE).depth

def infer_inherited():
    try:
        return runtime.infer(IMAGE).depth
    except Exception as error:
        return type(error).__name__

async def children(loop):
    for options in ({}, {"preexec_fn": int}):  # vfork, and fork with Python's handlers
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=-1, stdout=-1, **options)
        out, _ = await child.communicate(b"hello")
        assert (child.returncode, out.strip()) == (0, b"hello")

async def threads(loop):
    calls = (loop.run_in_executor(None, lambda: runtime.infer(IMAGE).depth) for _ in range(8))
    assert all((depth == expected).all() for depth in await asyncio.gather(*calls))

async def forked(loop):
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert await loop.run_in_executor(pool, infer_inherited) == "BackendError"

async def spawned(loop):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert (await loop.run_in_executor(pool, infer, sys.argv[1]) == expected).all()

async def signals(loop):
    seen = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, seen.set)
    frames = [loop.run_in_executor(None, lambda: runtime.infer(IMAGE).depth) for _ in range(8)]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(seen.wait(), 5)
    assert all((depth == expected).all() for depth in await asyncio.gather(*frames))

async def main(part):
    await part(asyncio.get_running_loop())

if __name__ == "__main__":
    with DepthRuntime.load(sys.argv[1]) as runtime:
        expected = runtime.infer(IMAGE).depth
        signal.alarm(int(sys.argv[2]))
        asyncio.run(main(globals()[sys.argv[3]]))
        assert (runtime.infer(IMAGE).depth == expected).all()
    print("done")
"""


@pytest.mark.parametrize("part", ["children", "threads", "forked", "spawned", "signals"])
@pytest.mark.parametrize("engine_id", ["openvino:fp32", "onnxruntime:fp32"])
def test_an_event_loop_after_inference(
    engine_id: str, part: str, engine_of: Callable[[str], Path], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"  # a spawned process reads it again
    program.write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, str(program), str(engine_of(engine_id)), str(LIMIT_S), part],
        check=False,
        capture_output=True,
        text=True,
        timeout=6 * LIMIT_S,
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


@pytest.fixture(scope="module")
def engine_of(build_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of an engine, built once for the module."""
    built: dict[str, Path] = {}

    def get(engine_id: str) -> Path:
        pytest.importorskip(engine_id.split(":")[0])
        if engine_id not in built:
            built[engine_id] = build_tiny(tmp_path_factory.mktemp("loop"), engine_id)
        return built[engine_id]

    return get
