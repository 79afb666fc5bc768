"""libmvde in a C++ project outside the tree, installed or part of its build, matches Python bit for bit."""

from __future__ import annotations

import importlib.util
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
SUBPROJECT = Path(__file__).parent / "subproject"
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
def subproject(tmp_path_factory):
    """Build of a project that has mvde as a part, and installs it too: libmvde is compiled once for all tests."""
    folder = tmp_path_factory.mktemp("subproject")
    settings = ["-DCMAKE_INSTALL_LIBDIR=lib", "-DMVDE_INSTALL=ON", "-Dhow=FetchContent"]
    settings += ["-DCMAKE_BUILD_TYPE=Release", "-DMVDE_WERROR=ON"]  # as `make native`, whose objects ccache then has
    run("cmake", "-S", SUBPROJECT, "-B", folder, f"-DMVDE_SOURCE={ROOT}", *settings)
    run("cmake", "--build", folder, "--parallel", "2", "--target", "robot")
    return folder


@pytest.fixture(scope="module")
def prefix(subproject, tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "--install", subproject, "--prefix", folder / "prefix")
    return (folder / "prefix").rename(folder / "moved")  # it must be relocatable


def test_it_can_be_a_part_of_another_project(subproject):
    check_consumer(subproject / "robot", "")


@pytest.mark.parametrize("how", ["FetchContent", "add_subdirectory"])
def test_as_a_part_it_installs_nothing_and_its_library_brings_the_backends(how, tmp_path):
    configure = ["cmake", "-S", SUBPROJECT, "-B", tmp_path, f"-DMVDE_SOURCE={ROOT}", f"-Dhow={how}", "-DSKBUILD=2"]
    openvino = importlib.util.find_spec("openvino")
    if openvino is not None:
        configure += ["-DMVDE_BUILD_OPENVINO=ON", f"-DOpenVINO_DIR={Path(openvino.origin).parent / 'cmake'}"]
    run(*configure)
    scripts = "".join(path.read_text() for path in tmp_path.rglob("cmake_install.cmake"))
    assert "/robot" in scripts
    assert "libmvde" not in scripts
    assert "mvde.h" not in scripts
    if openvino is not None:
        assert Path((tmp_path / "backend").read_text()).name == "libmvde_openvino.so"
        # libmvde loads it at run time. The dry run lists the commands, then misses the objects that it did not build.
        command = ["cmake", "--build", str(tmp_path), "--target", "mvde", "--", "-n"]
        assert (
            "backends/openvino/openvino.cpp"
            in subprocess.run(command, capture_output=True, text=True, check=False).stdout
        )


def statistics_in_python(image):
    resized = native.Resizer(image.shape[:2], (64, 64), "crop").resize(image)
    depth = resized[None, ..., 0].astype(np.float32) / 64 + np.float32(0.5)
    return native.patch_stats(depth, 16, ("mean", "var", "grad"))[0]


def check_consumer(program, library_folder):
    image = np.asarray(Image.open(PHOTO).convert("RGB"))
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_folder)}  # empty: as the build linked it
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
