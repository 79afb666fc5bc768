"""The call of depth-anything.cpp, with a library of the same C API that returns the red of its PPM."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "depth_anything_cpp.py"

LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
int ggml_cpu_has_avx512(void) { return 1; }
int ggml_cpu_has_avx512_vnni(void) { return 1; }
int ggml_cpu_has_avx512_bf16(void) { return 0; }
int ggml_cpu_has_avx_vnni(void) { return 0; }
int ggml_cpu_has_amx_int8(void) { return 0; }
void* da_capi_load(const char* path, int num_threads) { return num_threads == 3 ? malloc(1) : NULL; }
void da_capi_free(void* context) { free(context); }
void da_capi_free_floats(float* floats) { free(floats); }
const char* da_capi_last_error(void* context) { return "no PPM"; }
float* da_capi_depth_path(void* context, const char* path, int* height, int* width) {
    FILE* file = fopen(path, "rb");
    if (fscanf(file, "P6 %d %d 255", width, height) != 2 || *width == 7) { fclose(file); return NULL; }
    fgetc(file);
    float* depth = malloc(sizeof(float) * *width * *height);
    for (int i = 0; i < *width * *height; ++i) { depth[i] = fgetc(file); fgetc(file); fgetc(file); }
    fclose(file);
    return depth;
}
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("depth_anything_cpp", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("library")
    (folder / "library.c").write_text(LIBRARY, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "library.so", "library.c"], cwd=folder, check=True)
    return folder / "library.so"


def test_every_photograph_reaches_the_library(module: ModuleType, library: Path) -> None:
    rng = np.random.default_rng(0)
    with module.open_network(library, Path("weights.gguf"), 3) as infer:
        for size in ((12, 20), (5, 6), (30, 9)):
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            depth = infer(image[::-1])  # not contiguous
            assert depth.dtype == np.float32
            np.testing.assert_array_equal(depth, image[None, ::-1, :, 0])


def test_failures_of_the_library_are_raised(module: ModuleType, library: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"cannot load weights\.gguf"),
        module.open_network(library, Path("weights.gguf"), 1),
    ):
        pass
    with module.open_network(library, Path("weights.gguf"), 3) as infer, pytest.raises(RuntimeError, match="no PPM"):
        infer(np.zeros((7, 7, 3), np.uint8))


def test_a_build_for_more_than_the_cap_is_refused(module: ModuleType, library: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"more than avx2: avx512$"),
        module.open_network(library, Path("weights.gguf"), 3, "avx2"),
    ):
        pass
    with module.open_network(library, Path("weights.gguf"), 3, "avx512"):
        pass
