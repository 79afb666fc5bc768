"""The TensorRT backend with NVIDIA's headers and library, as far as possible without a GPU.

``TensorRT_INCLUDE_DIR`` lists folders of public headers (NvInferRuntime.h), separated by ``:``, oldest first:
https://github.com/NVIDIA/TensorRT, folder ``include`` of a release branch.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mvde.manifest import EngineManifest

ROOT = Path(__file__).parents[2]
VARIABLE = "TensorRT_INCLUDE_DIR"  # as in CMake
INCLUDE_DIRS = [Path(text) for text in os.environ.get(VARIABLE, "").split(":") if text]
CUDA_INCLUDE_DIR = Path(os.environ.get("CUDA_INCLUDE_DIR", "/usr/local/cuda/include"))
RTX = importlib.util.find_spec("tensorrt_rtx_libs")

NO_DEVICE = -18  # MVDE_ERROR_NO_DEVICE

needs_headers = pytest.mark.skipif(
    not INCLUDE_DIRS or not (CUDA_INCLUDE_DIR / "cuda_runtime_api.h").is_file() or shutil.which("cmake") is None,
    reason="needs TensorRT's headers in TensorRT_INCLUDE_DIR, CUDA's headers and cmake",
)


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@needs_headers
@pytest.mark.parametrize("include_dir", INCLUDE_DIRS, ids=[path.parent.name for path in INCLUDE_DIRS])
def test_compiles_against_the_public_headers_without_a_warning(include_dir: Path, tmp_path: Path) -> None:
    options = ["-DMVDE_WERROR=ON", "-DMVDE_BUILD_TENSORRT=ON", "-DTensorRT_LIBRARY=", "-DTensorRT_RTX_LIBRARY="]
    headers = [f"-DTensorRT_INCLUDE_DIR={include_dir}", f"-DCUDA_INCLUDE_DIR={CUDA_INCLUDE_DIR}"]
    run("cmake", "-S", ROOT, "-B", tmp_path, *options, *headers)
    run("cmake", "--build", tmp_path, "--target", "tensorrt_compile_check")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build libmvde with the TensorRT-RTX backend, linked against the wheel's library."""
    if RTX is None or RTX.submodule_search_locations is None or shutil.which("nvcc") is None:
        pytest.skip("needs nvcc and the package tensorrt-rtx-cu13")
    (rtx,) = Path(RTX.submodule_search_locations[0]).glob("libtensorrt_rtx.so.*")
    folder = tmp_path_factory.mktemp("rtx")
    options = ["-DMVDE_WERROR=ON", "-DMVDE_BUILD_TENSORRT=ON", "-DTensorRT_LIBRARY=", "-DCMAKE_CUDA_ARCHITECTURES=80"]
    files = [f"-DTensorRT_RTX_INCLUDE_DIR={INCLUDE_DIRS[-1]}", f"-DTensorRT_RTX_LIBRARY={rtx}"]
    run("cmake", "-S", ROOT, "-B", folder, *options, *files)
    run("cmake", "--build", folder, "--target", "mvde", "mvde_tensorrt_rtx")
    return folder / "cpp/libmvde.so"


@pytest.mark.slow
@needs_headers
@pytest.mark.skipif(Path("/dev/nvidiactl").exists() or Path("/dev/nvgpu").exists(), reason="for machines without a GPU")
def test_without_a_gpu_opening_an_engine_says_so_with_an_error_of_its_own(
    library: Path, tmp_path: Path, write_engine: Callable[..., EngineManifest]
) -> None:
    import tensorrt_rtx

    write_engine(tmp_path / "engine", library_version=str(tensorrt_rtx.__version__))
    mvde = ctypes.CDLL(str(library))
    mvde.mvde_last_error.restype = ctypes.c_char_p
    session = ctypes.c_void_p()
    status = mvde.mvde_open(str(tmp_path / "engine").encode(), None, ctypes.byref(session))
    message = mvde.mvde_last_error().decode()
    assert (status, session.value) == (NO_DEVICE, None), message
    assert message.startswith(f"TensorRT-RTX cannot run {tmp_path}/engine/engine.plan: there is no CUDA device: ")
    assert message.endswith("; run it on the machine that has the GPU")

    write_engine(tmp_path / "engine", library_version="1.0.0.1")
    assert mvde.mvde_open(str(tmp_path / "engine").encode(), None, ctypes.byref(session)) < 0
    message = mvde.mvde_last_error().decode()
    assert (
        f"cannot run here: it was built with TensorRT-RTX 1.0.0.1, but {tensorrt_rtx.__version__} is installed"
        in message
    )
