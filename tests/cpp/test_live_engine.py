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

from tests.cpp.ctypes_session import HAS_OPENVINO, NEEDS_OPENVINO, load

ROOT = Path(__file__).parents[2]
INCOMPATIBLE = -13  # MVDE_ERROR_INCOMPATIBLE

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(not HAS_OPENVINO, reason=NEEDS_OPENVINO)

SPOILT_UNDER_A_SESSION = """
import os, sys
from pathlib import Path
import numpy as np
from tests.cpp.ctypes_session import Session
folder = Path(sys.argv[1])
session, image = Session(folder), np.random.default_rng(0).integers(0, 256, (256, 384, 3), np.uint8)
before = session.infer(image, num_patches=16 * 24).depth
for path in folder.iterdir():
    with path.open("r+b") as stream:
        stream.write(b"\\xff" * path.stat().st_size)
assert (session.infer(image, num_patches=16 * 24).depth == before).all(), "overwritten"
for path in folder.iterdir():
    os.truncate(path, 0)
assert (session.infer(image, num_patches=16 * 24).depth == before).all(), "cut off"
session.close()
print("went on")
"""


def test_a_session_does_not_need_its_files(build_offset: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPOILT_UNDER_A_SESSION, str(build_offset(tmp_path, 1.0))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
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
    library, session = load(), ctypes.c_void_p()
    assert library.mvde_open(str(folder).encode(), None, ctypes.byref(session)) == INCOMPATIBLE
    assert words in library.mvde_last_error().decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines"]
