"""The ROS 2 package: its core's own tests, its depth against Python's bits, and what ament installs of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import mvde
from mvde import DepthRuntime, cli

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ros/mvde_ros"
BUILD = ROOT / "build/native"
AMENT = tuple(Path("/usr/share", name, "cmake") for name in ("ament_cmake", "ament_cmake_gtest"))
PHOTO = ROOT / "mvde/assets/photos/coffee.jpg"

needs_ament = pytest.mark.skipif(
    not (
        all(one.is_dir() for one in AMENT) and (BUILD / "cpp/libmvde_openvino.so").is_file() and shutil.which("cmake")
    ),
    reason="apt install ament-cmake ament-cmake-googletest, and `make native`, which builds libmvde and its backend",
)


def checked(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mvde_ros")
    checked("cmake", "--install", BUILD, "--prefix", folder / "mvde")
    configure = ["-DMVDE_ROS_NODE=OFF", "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_PREFIX_PATH={folder / 'mvde'}"]
    configure.append("-DPython3_EXECUTABLE=/usr/bin/python3")  # the one that has ament_package
    checked("cmake", "-S", PACKAGE, "-B", folder / "build", *configure, "-DCMAKE_CXX_FLAGS=-Werror")
    checked("cmake", "--build", folder / "build")
    return folder / "build"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("engine")
    export, engines = folder / "export", folder / "engines"
    assert cli.execute(["export", "--res", "96x128", "--out", str(export)]) == 0
    build_engine = ["build", "--engine", "openvino:fp32", "--export-dir", str(export), "--out", str(engines)]
    assert cli.execute(build_engine) == 0
    (path,) = engines.iterdir()
    return path


@pytest.mark.slow
@needs_ament
def test_the_core_passes_its_tests(build: Path) -> None:
    checked("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")


@pytest.mark.slow
@needs_ament
def test_ament_installs_a_package_that_ros_finds(build: Path, tmp_path: Path) -> None:
    checked("cmake", "--install", build, "--prefix", tmp_path)
    share = tmp_path / "share/mvde_ros"
    assert (tmp_path / "share/ament_index/resource_index/packages/mvde_ros").is_file()
    for name in ("package.xml", "cmake/mvde_rosConfig.cmake", "launch/depth.launch.py", "config/depth.yaml"):
        assert (share / name).is_file(), name


@pytest.mark.extended
@needs_ament
@pytest.mark.parametrize("encoding", ["rgb8", "bgra8"])
def test_an_image_has_pythons_depth_points_and_patches(build: Path, engine: Path, encoding: str) -> None:
    image = np.asarray(Image.open(PHOTO).convert("RGB"))[:301]
    height, width = image.shape[:2]
    camera = mvde.Camera(431.25, 520.5, 300.0, 187.0, size=(height, width))

    pixels = image if encoding == "rgb8" else np.dstack([image[..., ::-1], np.full((height, width), 7, np.uint8)])
    padded = np.pad(pixels.reshape(height, -1), ((0, 0), (0, 13)))  # rows of a step of their own
    command = [build / "estimate", engine, encoding, height, width, padded.shape[1], "431.25,520.5,300,187"]
    done = subprocess.run([str(word) for word in command], input=padded.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

    with DepthRuntime.load(engine, camera=camera) as runtime:
        result = runtime.infer(image)
    points = result.points(step=2, rgb=image)
    rows, columns = result.grid
    patches = np.moveaxis(result.stats, 1, 0).reshape(-1, rows, columns)
    wanted = np.concatenate([result.depth.ravel(), points.ravel(), patches.ravel()])
    assert done.stdout == wanted.astype(np.float32).tobytes()


@pytest.mark.slow
@needs_ament
def test_settings_and_images_that_cannot_be_used_are_refused(build: Path) -> None:
    command = [str(build / "estimate"), "engines/absent", "rgb8", "1", "1", "3"]
    for camera, said in (("1,2,3", "camera has 3 numbers"), ("-", "engines/absent")):
        done = subprocess.run([*command, camera], input=b"abc", capture_output=True, text=False, check=False)
        assert done.returncode == 1
        assert said in done.stderr.decode()


def test_every_parameter_of_the_node_stands_in_its_file_and_on_its_page() -> None:
    node = (PACKAGE / "src/depth_node.cpp").read_text()
    names = set(re.findall(r'declare_parameter\(\s*"(\w+)"', node))
    assert names > {"engine", "fit", "points_step"}
    config = set(re.findall(r"^    (\w+): ", (PACKAGE / "config/depth.yaml").read_text(), re.M))
    assert names - config == {"engine", "camera"}, "they have no default that a file could state"
    assert config <= names
    page = (ROOT / "docs/ros.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_packages_have_the_version_of_the_library() -> None:
    for path in (ROOT / "package.xml", PACKAGE / "package.xml"):
        package = ElementTree.parse(path).getroot()
        assert package.findtext("version") == mvde.__version__, path
    assert f"project(mvde_ros VERSION {mvde.__version__} " in (PACKAGE / "CMakeLists.txt").read_text()
    declared = {one.text for one in ElementTree.parse(PACKAGE / "package.xml").getroot().findall("depend")}
    found = set(re.findall(r"find_package\((\w+) ", (PACKAGE / "CMakeLists.txt").read_text()))
    assert declared == found - {"ament_cmake", "ament_cmake_gtest", "Threads"}
