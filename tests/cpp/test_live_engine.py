"""libmvde sessions survive changes to their files, and a manifest cannot set arbitrary OpenVINO options."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LIBRARY = Path(__file__).parents[2] / "build/native/cpp/libmvde.so"
INCOMPATIBLE = -13  # MVDE_ERROR_INCOMPATIBLE

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(
    not LIBRARY.with_name("libmvde_openvino.so").is_file(), reason="`make native` builds libmvde and its backend"
)

SPOILT_UNDER_A_SESSION = """
import ctypes, os, sys
from pathlib import Path
import numpy as np
library, folder = ctypes.CDLL(sys.argv[1]), Path(sys.argv[2])
class Frame(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("format", ctypes.c_int32), ("data", ctypes.c_void_p),
                ("chroma", ctypes.c_void_p), ("height", ctypes.c_int64), ("width", ctypes.c_int64),
                ("row_stride", ctypes.c_int64), ("chroma_row_stride", ctypes.c_int64),
                ("matrix", ctypes.c_int32), ("full_range", ctypes.c_int32),
                ("timestamp_ns", ctypes.c_int64), ("sequence", ctypes.c_uint64),
                ("anchors", ctypes.c_void_p), ("num_anchors", ctypes.c_int32), ("time_s", ctypes.c_double)]
class Outputs(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("depth", ctypes.c_void_p), ("depth_capacity", ctypes.c_int64),
                ("depth_mm", ctypes.c_void_p), ("depth_mm_capacity", ctypes.c_int64),
                ("stats", ctypes.c_void_p), ("stats_capacity", ctypes.c_int64),
                ("timestamp_ns", ctypes.c_int64), ("sequence", ctypes.c_uint64),
                ("calibrated", ctypes.c_int32), ("points", ctypes.c_void_p), ("points_capacity", ctypes.c_int64),
                ("points_step", ctypes.c_int32), ("points_colours", ctypes.c_void_p),
                ("ranges", ctypes.c_void_p), ("ranges_capacity", ctypes.c_int64), ("num_steady", ctypes.c_int32)]
session = ctypes.c_void_p()
library.mvde_last_error.restype = ctypes.c_char_p
assert library.mvde_open(str(folder).encode(), None, ctypes.byref(session)) == 0, library.mvde_last_error()
image = np.random.default_rng(0).integers(0, 256, (256, 384, 3), np.uint8)
def infer():
    depth = np.zeros((256, 384), np.float32)
    frame = Frame(ctypes.sizeof(Frame), 0, image.ctypes.data, None, 256, 384)
    outputs = Outputs()
    library.mvde_outputs_defaults(ctypes.byref(outputs))
    outputs.depth, outputs.depth_capacity = depth.ctypes.data, depth.size
    assert library.mvde_infer(session, ctypes.byref(frame), ctypes.byref(outputs)) == 0, library.mvde_last_error()
    return depth
before = infer()
for path in folder.iterdir():
    with path.open("r+b") as stream:
        stream.write(b"\\xff" * path.stat().st_size)
assert (infer() == before).all(), "overwritten"
for path in folder.iterdir():
    os.truncate(path, 0)
assert (infer() == before).all(), "cut off"
library.mvde_close(session)
print("went on")
"""


def test_a_session_does_not_need_its_files(build_offset: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPOILT_UNDER_A_SESSION, str(LIBRARY), str(build_offset(tmp_path, 1.0))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "went on"), done.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CACHE_DIR", "{folder}/cache", "the option 'CACHE_DIR', which mvde does not set; it sets CPU_DENORMALS"),
        ("INFERENCE_NUM_THREADS", "many", "the option INFERENCE_NUM_THREADS as 'many', but mvde sets what matches"),
    ],
)
def test_a_manifest_does_not_choose_the_librarys_options(
    name: str, value: str, words: str, engine_folder: Path, tmp_path: Path, edit_manifest: Callable[..., None]
) -> None:
    folder = Path(shutil.copytree(engine_folder, tmp_path / "engines" / "hostile"))

    def add(told: dict[str, Any]) -> None:
        told["engine"]["options"][name] = value.format(folder=tmp_path)

    edit_manifest(folder / "engine.json", add)
    library, session = ctypes.CDLL(str(LIBRARY)), ctypes.c_void_p()
    library.mvde_last_error.restype = ctypes.c_char_p
    assert library.mvde_open(str(folder).encode(), None, ctypes.byref(session)) == INCOMPATIBLE
    assert words in library.mvde_last_error().decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines"]
