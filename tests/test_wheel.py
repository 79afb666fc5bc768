"""The built wheel, installed into a clean environment without torch, builds and runs an engine."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKSTATION = {"torch", "transformers", "onnx", "onnxruntime", "omegaconf"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (path,) = folder.glob("mvde-*.whl")
    return path


@pytest.fixture(scope="module")
def empty_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robot")
    venv.create(folder, with_pip=True)
    _run(str(folder / "bin/pip"), "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    return folder / "bin"


@pytest.mark.slow
def test_wheel_serves_every_python_of_one_platform(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl"), "the wheel contains libmvde, so it is platform-specific"


@pytest.mark.slow
def test_wheel_holds_the_package_and_the_library_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mvde"}
    assert any(name.endswith("libmvde.so") for name in names)
    assert any(name.endswith("nano.safetensors") for name in names)
    assert "mvde/py.typed" in names  # PEP 561 marker, required by type checkers


@pytest.mark.slow
def test_names_the_cmake_package_that_it_holds(empty_environment: Path, tmp_path: Path) -> None:
    folder = Path(_run(str(empty_environment / "python"), "-m", "mvde", "--cmake-dir", cwd=tmp_path).strip())
    assert (folder / "mvdeConfig.cmake").is_file()
    consumer = ROOT / "tests/cpp/consumer"
    _run("cmake", "-S", str(consumer), "-B", str(tmp_path / "build"), f"-Dmvde_DIR={folder}")
    _run("cmake", "--build", str(tmp_path / "build"))


@pytest.mark.slow
def test_run_works_without_torch(empty_environment: Path, tmp_path: Path) -> None:
    installed = _run(str(empty_environment / "pip"), "list", "--format=freeze").lower()
    assert WORKSTATION.isdisjoint(line.split("==")[0] for line in installed.splitlines())

    engines, exports, out = tmp_path / "engines", tmp_path / "export", tmp_path / "out"
    mvde = [sys.executable, "-m", "mvde"]
    _run(*mvde, "export", "--res", "224", "--out", str(exports))
    # Build-time parity needs ONNX Runtime; deployment does not.
    _run(*mvde, "build", "--engine", "openvino:fp32", "--export-dir", str(exports), "--out", str(engines))
    robot = str(empty_environment / "mvde")
    photograph = ROOT / "mvde/assets/photos/coffee.jpg"
    _run(robot, "run", str(photograph), "--engine-dir", str(engines), "--out", str(out), cwd=tmp_path)
    assert {path.name for path in out.iterdir()} >= {"coffee.depth.png", "coffee.stats.npz"}


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout
