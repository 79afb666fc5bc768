"""Building without a C++ compiler names the package to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the build environment or the system; started by absolute path, since the test empties PATH.
CMAKE = shutil.which("cmake", path=sysconfig.get_path("scripts")) or shutil.which("cmake")
NINJA = shutil.which("ninja", path=sysconfig.get_path("scripts")) or shutil.which("ninja")


@pytest.mark.skipif(CMAKE is None or NINJA is None, reason="needs cmake and ninja")
def test_a_missing_compiler_is_named_with_the_command_that_installs_one(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC")}
    done = subprocess.run(
        [str(CMAKE), "-S", str(ROOT), "-B", str(tmp_path / "build"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"],
        env={**environment, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    message = " ".join(done.stderr.split())  # CMake wraps lines
    assert "mvde needs a C++17 compiler to build libmvde, and none was found" in message
    assert "apt install g++" in message
