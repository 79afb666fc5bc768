"""The examples, built outside the tree against an installed mvde, match Python's results and errors bit for bit."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mvde
from mvde import cli
from mvde.engines.base import EngineId
from mvde.engines.openvino import attention
from mvde.engines.store import support
from mvde.files import file_record

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/native"
PUBLISHER = BUILD / "tests/cpp/test_shared_depth"
PHOTO = ROOT / "mvde/assets/photos/coffee.jpg"

pytestmark = pytest.mark.skipif(
    not ((BUILD / "cpp/libmvde_openvino.so").is_file() and PUBLISHER.is_file() and shutil.which("cmake")),
    reason="`make native` builds libmvde and its backend where Python's openvino is installed",
)


def checked(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    checked("cmake", "--install", BUILD, "--prefix", folder / "prefix")
    return folder / "prefix"


@pytest.fixture(scope="module")
def examples(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    configure = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={prefix}", "-DMVDE_WERROR=ON"]
    checked("cmake", "-S", prefix / "share/mvde/examples", "-B", folder, *configure)
    checked("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("session")
    assert cli.execute(["export", "--res", "96x128", "--out", str(folder / "export")]) == 0
    return folder


def build(folder: Path, engine_id: str) -> Path:
    out = folder / engine_id.replace(":", "-")
    assert cli.execute(["build", "--engine", engine_id, "--export-dir", str(folder / "export"), "--out", str(out)]) == 0
    (engine,) = out.iterdir()
    return engine


@pytest.fixture(scope="module")
def engine(folder: Path) -> Path:
    return build(folder, "openvino:fp32")


@pytest.fixture
def name() -> Iterator[str]:
    """Yield an unused name in /dev/shm, and remove it after the test."""
    name = f"mvde-test-{os.getpid()}"
    yield name
    (Path("/dev/shm") / name).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def read_depth() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_depth", ROOT / "cpp/examples/read_depth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def photograph() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


def run(program: object, *arguments: object, frames: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [str(word) for word in (program, *arguments)]
    return subprocess.run(command, input=frames, capture_output=True, check=False, timeout=60)


def infer(
    examples: Path, engine: Path, out: Path, fit: str = "stretch", *camera: str
) -> subprocess.CompletedProcess[bytes]:
    Image.open(PHOTO).convert("RGB").save(out / "photo.ppm")
    return run(examples / "infer", engine, out / "photo.ppm", out / "depth.f32", out / "stats.f32", fit, *camera)


def test_find_package_knows_the_backends_as_components(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\n"
        "project(robot LANGUAGES NONE)\n"
        "find_package(mvde 0.1 REQUIRED COMPONENTS ${wanted})\n"
        'file(GENERATE OUTPUT backend CONTENT "$<TARGET_FILE:mvde::openvino>")\n'
    )
    configure = ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dmvde_DIR={prefix / 'lib/cmake/mvde'}"]
    checked(*configure, "-Dwanted=openvino")
    assert (tmp_path / "build/backend").read_text() == str(prefix / "lib/libmvde_openvino.so")
    refused = run(*configure, "-Dwanted=tensorrt")
    assert refused.returncode != 0
    assert "libmvde_tensorrt.so is missing: build mvde with this backend" in " ".join(refused.stderr.decode().split())


def test_the_installation_can_carry_openvino(prefix: Path, engine: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(prefix, moved, symlinks=True)
    checked("cmake", "--install", BUILD, "--prefix", moved, "--component", "openvino")
    configure = ["-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_PREFIX_PATH={moved}"]
    checked("cmake", "-S", moved / "share/mvde/examples", "-B", tmp_path / "build", *configure)
    checked("cmake", "--build", tmp_path / "build", "--target", "infer")
    Image.open(PHOTO).convert("RGB").save(tmp_path / "photo.ppm")
    done = subprocess.run(
        [tmp_path / "build/infer", engine, tmp_path / "photo.ppm", tmp_path / "depth.f32", tmp_path / "stats.f32"],
        env={"LD_DEBUG": "libs"},  # the loader's report on stderr
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    started = {Path(path) for path in re.findall(r"calling init: (\S*(?:openvino|tbb)\S*)", done.stderr)}
    assert {path.name.split(".so")[0] for path in started} >= {"libopenvino", "libopenvino_intel_cpu_plugin", "libtbb"}
    assert {path.parent for path in started} == {moved / "lib", moved / "lib/mvde/openvino"}


@pytest.mark.parametrize("camera", [None, (431.25, 520.5, 300.0, 187.0)])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_infer_gives_pythons_bits(
    examples: Path, engine: Path, tmp_path: Path, fit: str, camera: tuple[float, float, float, float] | None
) -> None:
    image = photograph()
    given = None if camera is None else mvde.Camera(*camera, size=(image.shape[0], image.shape[1]))
    done = infer(examples, engine, tmp_path, fit, *([] if camera is None else [",".join(map(str, camera))]))
    assert done.returncode == 0, done.stderr
    assert b"computes in fp32" in done.stdout
    assert (b"camera assumed" in done.stdout) == (camera is None)
    with mvde.DepthRuntime.load(engine) as runtime:
        result = runtime.infer(image, fit=fit, camera=given)
    assert (result.camera_factor == 1) == (camera is None and fit == "stretch")
    assert np.isnan(result.depth).any() == (fit == "crop")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "depth.f32", np.float32), result.depth.ravel())
    np.testing.assert_array_equal(np.fromfile(tmp_path / "stats.f32", np.float32), result.stats.ravel())


SIGNAL_AFTER_SESSIONS = """
import ctypes, faulthandler, os, signal, sys
faulthandler.enable()  # with a signal stack, as in many programs
mvde = ctypes.CDLL(sys.argv[1])
sessions = [ctypes.c_void_p(), ctypes.c_void_p()]
for session in sessions:
    assert mvde.mvde_open(sys.argv[2].encode(), None, ctypes.byref(session)) == 0
for session in sessions:  # in the order of opening
    mvde.mvde_close(session)
signal.signal(signal.SIGUSR1, lambda number, frame: print("signalled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_after_sessions_were_closed_finds_its_stack(engine: Path) -> None:
    library = BUILD / "cpp/libmvde.so"
    done = run(sys.executable, "-c", SIGNAL_AFTER_SESSIONS, library, engine)
    assert (done.returncode, done.stdout) == (0, b"signalled\n"), done.stderr


@pytest.mark.parametrize(("precision", "runs"), [("bf16", "bf16"), ("int8", "int8+bf16")])
def test_what_runs_is_read_from_the_executed_graph(
    examples: Path, folder: Path, tmp_path: Path, precision: str, runs: str
) -> None:
    if not support(EngineId.parse("openvino:bf16")).works:
        pytest.skip("this CPU has no bf16 arithmetic")
    engine = build(folder, f"openvino:{precision}")
    done = infer(examples, engine, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"computes in {runs}".encode() in done.stdout
    with mvde.DepthRuntime.load(engine) as runtime:
        assert runtime.info.executed_precision == runs
        # With mvde's own attention, if supported: also bit-identical.
        if runs == "bf16":
            missing = attention.unavailable(attention.AMX, runtime.info.library_version)
            assert runtime.info.options["MVDE_ATTENTION"] == ("openvino" if missing else "amx")
        result = runtime.infer(photograph())
    np.testing.assert_array_equal(np.fromfile(tmp_path / "depth.f32", np.float32), result.depth.ravel())
    np.testing.assert_array_equal(np.fromfile(tmp_path / "stats.f32", np.float32), result.stats.ravel())


def test_the_example_in_c_gives_pythons_bits(examples: Path, engine: Path, tmp_path: Path) -> None:
    Image.open(PHOTO).convert("RGB").save(tmp_path / "photo.ppm")
    done = run(examples / "infer_c", engine, tmp_path / "photo.ppm", tmp_path / "stats.f32")
    assert done.returncode == 0, done.stderr
    with mvde.DepthRuntime.load(engine) as runtime:
        stats = runtime.infer(photograph()).stats
    np.testing.assert_array_equal(np.fromfile(tmp_path / "stats.f32", np.float32), stats.ravel())
    assert f"nearest patch {stats[:, 0].argmin()} at {stats[:, 0].min():.2f}".encode() in done.stdout

    refused = run(examples / "infer_c", tmp_path, tmp_path / "photo.ppm", tmp_path / "stats.f32")
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
    assert refused.stderr.startswith(b"infer_c: there is no manifest ")


def turn_shapes(told: dict[str, Any]) -> None:
    """Swap height and width throughout a manifest."""
    told["inputs"][0]["shape"], told["outputs"][0]["shape"] = [1, 128, 96, 3], [1, 128, 96]
    told["grid"].reverse()


@pytest.mark.parametrize(
    "damage", ["truncated", "one bit", "foreign blob", "lying shapes", "foreign manifest", "no manifest"]
)
def test_a_damaged_engine_is_refused_in_one_line(
    examples: Path, engine: Path, tmp_path: Path, damage: str, edit_manifest: Callable[..., None]
) -> None:
    copy = Path(shutil.copytree(engine, tmp_path / engine.name))
    blob, manifest = copy / "engine.blob", copy / "engine.json"
    content = bytearray(blob.read_bytes())
    if damage == "truncated":
        blob.write_bytes(content[:-1])
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
    elif damage == "foreign blob":
        blob.write_bytes(b"<?xml" + bytes(4096))
        edit_manifest(manifest, lambda told: told.update(file=vars(file_record(blob))))
    elif damage == "lying shapes":
        edit_manifest(manifest, turn_shapes)
    elif damage == "foreign manifest":
        manifest.write_text('{"kind": "something else"}')
    else:
        manifest.unlink()
    done = infer(examples, copy, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(b"infer: ")
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "depth.f32").exists()


def test_the_robot_loop_publishes_pythons_bits(examples: Path, engine: Path, name: str, read_depth: ModuleType) -> None:
    image = photograph()
    before = time.monotonic()
    frames = np.stack([image[::-1], image]).tobytes() + b"a frame that was cut off"
    done = run(examples / "robot_loop", engine, *image.shape[:2], 60_000, name, frames=frames)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"2 frames published, 0 of them late, 0 skipped; ")
    assert done.stderr == b"robot_loop: the input ended after 24 of a frame's %d bytes\n" % image.nbytes
    frame = read_depth.DepthReader(name).read()
    with mvde.DepthRuntime.load(engine) as runtime:
        result = runtime.infer(image, fit="letterbox")
    assert frame.number == 2
    assert 0 < frame.age_s < time.monotonic() - before
    assert frame.grid == result.grid
    np.testing.assert_array_equal(frame.depth_m, result.depth)
    np.testing.assert_array_equal(frame.stats, result.stats)


def test_the_robot_loop_counts_late_frames_and_catches_up(examples: Path, engine: Path, name: str) -> None:
    height, width = 720, 1280  # mapping depth back alone exceeds the budget
    done = run(examples / "robot_loop", engine, height, width, 1, name, frames=bytes(20 * height * width * 3))
    assert done.returncode == 0, done.stderr
    published, late, passed = (int(word) for word in done.stdout.split() if word.isdigit())
    assert 1 <= late == published
    assert published + passed == 20
    assert done.stderr.count(b"\n") == late
    assert b"late so far, skipping" in done.stderr


def test_the_robot_loop_refuses_a_budget_that_is_none(examples: Path, engine: Path) -> None:
    done = run(examples / "robot_loop", engine, 32, 32, "soon", "name")
    assert (done.returncode, done.stderr) == (1, b"robot_loop: soon is not a budget: give milliseconds, 1 or more\n")


def test_the_robot_loop_says_that_no_frame_came(examples: Path, engine: Path, name: str) -> None:
    done = run(examples / "robot_loop", engine, 32, 32, 60_000, name, frames=b"less")
    said = b"robot_loop: the input ended after 4 of a frame's 3072 bytes\nrobot_loop: no frame received\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_the_reader_says_in_one_line_that_nothing_is_published(name: str) -> None:
    done = run(sys.executable, ROOT / "cpp/examples/read_depth.py", name)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"read_depth: ")
    assert name.encode() in done.stderr


def test_the_reader_never_sees_a_torn_frame_under_load(name: str, read_depth: ModuleType) -> None:
    publisher = subprocess.Popen([PUBLISHER, "publish", name, "1500"])
    reader, numbers = None, []
    while publisher.poll() is None:
        if reader is None:
            with contextlib.suppress(OSError, ValueError):
                reader = read_depth.DepthReader(name)
            continue
        frame = reader.read()
        if frame is not None:
            numbers.append(frame.number)
            assert (frame.depth_m == frame.number % 65536).all()
            assert (frame.stats == frame.number % 65536).all()
    assert publisher.returncode == 0
    assert len(set(numbers)) > 10
    assert numbers == sorted(numbers)


def test_the_reader_says_what_is_not_there(name: str, read_depth: ModuleType) -> None:
    with pytest.raises(OSError, match="No such file"):
        read_depth.DepthReader(name)
    (Path("/dev/shm") / name).write_bytes(bytes(4096))
    with pytest.raises(ValueError, match="is not what robot_loop publishes"):
        read_depth.DepthReader(name)
