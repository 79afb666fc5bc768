"""libmvde sessions on a real GPU match Python's results for the same plan, from host and device memory.

Requires a GPU, nvcc, a package of TensorRT or TensorRT-RTX, and ``TensorRT_INCLUDE_DIR`` (see
``test_tensorrt_library.py``) with headers of the library's version (TensorRT-RTX 1.7: those of TensorRT 11.1).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import mvde
from mvde import cli
from mvde.cuda.gpu import find_gpu
from mvde.native.abi import CFrame
from tests.cpp.ctypes_session import Outputs

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "mvde/assets/photos/coffee.jpg"
VARIABLE = "TensorRT_INCLUDE_DIR"  # as in CMake
INCLUDE_DIR = os.environ.get(VARIABLE, "").split(":")[-1]
# backend → (Python package, library file, CMake's name)
LIBRARIES = {
    "tensorrt": ("tensorrt_libs", "libnvinfer.so.*", "TensorRT"),
    "tensorrt-rtx": ("tensorrt_rtx_libs", "libtensorrt_rtx.so.*", "TensorRT_RTX"),
}

# nvcc and NVRTC may fuse multiplications and additions of the same source differently.
STATS_RTOL = 2e-6

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU"),
    pytest.mark.skipif(not INCLUDE_DIR or shutil.which("nvcc") is None, reason=f"needs nvcc and {VARIABLE}"),
]


class Built(NamedTuple):
    """libmvde with the backend, its examples, and an engine of that backend."""

    library: Path
    infer: Path
    engine: Path


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=LIBRARIES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("torch")
    package, pattern, name = LIBRARIES[request.param]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    (library,) = Path(spec.submodule_search_locations[0]).glob(pattern)
    folder = tmp_path_factory.mktemp(request.param)
    options = ["-DMVDE_BUILD_TENSORRT=ON", "-DMVDE_BUILD_EXAMPLES=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    files = [f"-D{name}_INCLUDE_DIR={INCLUDE_DIR}", f"-D{name}_LIBRARY={library}"]
    run("cmake", "-S", ROOT, "-B", folder / "build", *options, *files)
    run("cmake", "--build", folder / "build", "--parallel", "4")
    exports, engines = str(folder / "export"), str(folder / "engines")
    assert cli.execute(["export", "--res", "96x128", "--out", exports]) == 0
    assert cli.execute(["build", "--engine", f"{request.param}:fp32", "--export-dir", exports, "--out", engines]) == 0
    (engine,) = Path(engines).iterdir()
    return Built(folder / "build/cpp/libmvde.so", folder / "build/cpp/examples/infer", engine)


def photograph() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_frames_of_the_host_give_pythons_results(built: Built, tmp_path: Path, fit: str) -> None:
    Image.open(PHOTO).convert("RGB").save(tmp_path / "photo.ppm")
    run(built.infer, built.engine, tmp_path / "photo.ppm", tmp_path / "depth.f32", tmp_path / "stats.f32", fit)
    with mvde.DepthRuntime.load(built.engine) as runtime:
        result = runtime.infer(photograph(), fit=fit)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "depth.f32", np.float32), result.depth.ravel())
    stats = np.fromfile(tmp_path / "stats.f32", np.float32).reshape(result.stats.shape)
    np.testing.assert_allclose(stats, result.stats, rtol=STATS_RTOL, atol=1e-7)


def test_frames_in_device_memory_run_on_the_callers_stream(built: Built) -> None:
    from mvde.cuda.memory import CudaDevice

    image = np.ascontiguousarray(np.asarray(Image.open(PHOTO).convert("RGB").resize((128, 96))))
    with mvde.DepthRuntime.load(built.engine) as runtime:
        expected = runtime.infer(image)
    device = CudaDevice()
    stream = device.create_stream()
    shapes = {
        "image": (image.shape, np.uint8),
        "depth": ((96, 128), np.float32),
        "stats": (expected.stats.shape, np.float32),
    }
    pinned = {name: device.pinned(shape, dtype) for name, (shape, dtype) in shapes.items()}
    buffers = {name: device.allocate(array.array.nbytes, stream) for name, array in pinned.items()}
    device.synchronize(stream)

    library = ctypes.CDLL(str(built.library))
    library.mvde_last_error.restype = ctypes.c_char_p
    library.mvde_infer_device.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    session = ctypes.c_void_p()
    frame = CFrame(struct_size=ctypes.sizeof(CFrame), data=buffers["image"].address, height=96, width=128)
    depth, stats = buffers["depth"].address, buffers["stats"].address
    outputs = Outputs(ctypes.sizeof(Outputs), depth, expected.depth.size, None, 0, stats, expected.stats.size)
    opened = library.mvde_open(str(built.engine).encode(), None, ctypes.byref(session))
    assert opened == 0, library.mvde_last_error()
    assert library.mvde_bind_device(session, ctypes.byref(frame), ctypes.byref(outputs)) == 0, library.mvde_last_error()
    pinned["image"].array[:] = image
    device.upload(buffers["image"].address, pinned["image"].array, stream)
    assert library.mvde_infer_device(session, int(stream.handle)) == 0, library.mvde_last_error()
    for name in ("depth", "stats"):
        device.download(pinned[name].array, buffers[name].address, stream)
    device.synchronize(stream)
    library.mvde_close(session)
    np.testing.assert_array_equal(pinned["depth"].array, expected.depth)
    np.testing.assert_allclose(pinned["stats"].array, expected.stats, rtol=STATS_RTOL, atol=1e-7)
