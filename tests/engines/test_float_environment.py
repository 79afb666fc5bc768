"""A program that rounds upwards gets the same depth, and computes as it did afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

UPWARDS = {"x86_64": 0x800, "aarch64": 0x400000}

SCRIPT = """
import ctypes, sys
from pathlib import Path
import numpy as np
from mvde.engines.onnxruntime.engine import open_onnx
from mvde.engines.store import find, load_engine
libm, upwards = ctypes.CDLL("libm.so.6"), int(sys.argv[2])

def load():
    engine, _ = load_engine(find(Path(sys.argv[1])))
    return engine

def depth_of(loaded_in, run_in):
    libm.fesetround(loaded_in)
    engine = load()
    assert libm.fegetround() == loaded_in
    images = np.random.default_rng(0).integers(0, 256, (1, *engine.info.resolution, 3), np.uint8)
    libm.fesetround(run_in)
    depth = engine.infer(images)
    assert libm.fegetround() == run_in
    libm.fesetround(0)
    return depth

expected = depth_of(0, 0)
for loaded_in, run_in in ((0, upwards), (upwards, 0), (upwards, upwards)):
    assert (depth_of(loaded_in, run_in) == expected).all(), (loaded_in, run_in)
print("equal")
"""


@pytest.mark.skipif(platform.machine() not in UPWARDS, reason="the constant of rounding upwards is not known here")
@pytest.mark.parametrize("engine_id", ["openvino:fp32", "onnxruntime:fp32"])
def test_depth_does_not_depend_on_the_programs_rounding(
    engine_id: str, build_offset: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip(engine_id.split(":")[0])
    folder = build_offset(tmp_path, 1.0, engine_id)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(UPWARDS[platform.machine()])],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "equal\n"), ended.stderr
