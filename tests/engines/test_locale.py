"""Engines in a program with a German locale, with a decimal comma and grouped digits: equal depth, or the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, locale, sys
from pathlib import Path
import numpy as np
from mvde.engines.store import find, load_engine

def depth():
    engine, manifest = load_engine(find(Path(sys.argv[1])))
    images = np.random.default_rng(0).integers(0, 256, (1, *engine.info.resolution, 3), np.uint8)
    return engine.infer(images), engine.info.library_version, manifest

class CppLocale(ctypes.Structure):
    _fields_ = [("implementation", ctypes.c_void_p)]

def set_cpp_locale():
    "std::locale::global(std::locale(name)), which a program in C++ calls and which sets C's, too."
    library = ctypes.CDLL("libstdc++.so.6")
    made, before = (ctypes.create_string_buffer(16) for _ in range(2))
    library._ZNSt6localeC1EPKc(made, b"de_DE.UTF-8")
    library._ZNSt6locale6globalERKS_(before, made)

if sys.argv[2] == "C":
    locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
else:
    set_cpp_locale()
libc = ctypes.CDLL(None)
libc.strtod.restype = ctypes.c_double
assert libc.strtod(b"1,5", None) == 1.5, "the locale is in force"
before = depth()
locale.setlocale(locale.LC_ALL, "C")
after = depth()
assert (before[0] == after[0]).all()
assert before[1:] == after[1:]
print("equal")
"""


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which the C library finds de_DE.UTF-8, compiled where the system does not have it."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")],
        check=False,
        capture_output=True,
        text=True,
    )
    if not (folder / "de_DE.UTF-8" / "LC_NUMERIC").is_file():
        pytest.skip(f"localedef cannot compile de_DE (package locales): {made.stderr.strip()[:200]}")
    return {**os.environ, "LOCPATH": str(folder)}


@pytest.mark.parametrize("library", ["C", "C++"])
@pytest.mark.parametrize("engine_id", ["openvino:fp32", "onnxruntime:fp32"])
def test_depth_does_not_depend_on_the_locale(
    engine_id: str, library: str, german: dict[str, str], build_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip(engine_id.split(":")[0])
    folder = build_tiny(tmp_path, engine_id)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), library],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=german,
    )
    if ended.returncode and (engine_id, library) == ("openvino:fp32", "C++"):
        # OpenVINO 2026.4 compares its version as std::locale writes it; libmvde sets the classic one meanwhile.
        assert "the global C++ locale of this program groups digits" in ended.stderr
    else:
        assert (ended.returncode, ended.stdout) == (0, "equal\n"), ended.stderr
