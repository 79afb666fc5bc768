"""libmvde from an installed prefix in an external C++ project: bit-identical to Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde import native

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).parent / "consumer"
PHOTO = ROOT / "mvde/assets/photos/coffee.jpg"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("cmake") is None or shutil.which("c++") is None, reason="needs cmake and a compiler"
    ),
]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "-S", ROOT, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_INSTALL_LIBDIR=lib")
    run("cmake", "--build", folder / "build", "--parallel", "2")
    run("cmake", "--install", folder / "build", "--prefix", folder / "prefix")
    return (folder / "prefix").rename(folder / "moved")  # the prefix must be relocatable


def statistics_in_python(image):
    resized = native.Resizer(image.shape[:2], (64, 64), "crop").resize(image)
    depth = resized[None, ..., 0].astype(np.float32) / 64 + np.float32(0.5)
    return native.patch_stats(depth, 16, ("mean", "var", "grad"))[0]


def check_consumer(program, library_folder):
    image = np.asarray(Image.open(PHOTO).convert("RGB"))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_folder)}
    out = run(program, *image.shape[:2], input=image.tobytes(), env=environment)
    np.testing.assert_array_equal(np.frombuffer(out, np.float32).reshape(16, 3), statistics_in_python(image))


def test_find_package_finds_it(prefix, tmp_path):
    run("cmake", "-S", CONSUMER, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    check_consumer(tmp_path / "consumer", prefix / "lib")


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
def test_pkg_config_finds_it(prefix, tmp_path):
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "mvde", env=environment).decode().split()
    run("c++", "-std=c++17", CONSUMER / "main.cpp", "-o", tmp_path / "consumer", *flags)
    check_consumer(tmp_path / "consumer", prefix / "lib")


def test_without_a_compiler_the_build_says_what_to_install(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cmake").symlink_to(Path(shutil.which("cmake")).resolve())
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC")}
    done = subprocess.run(
        [tools / "cmake", "-S", ROOT, "-B", tmp_path / "build"],
        env={**environment, "PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "apt install g++" in " ".join(done.stderr.split())
