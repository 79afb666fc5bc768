"""NVRTC compiles the CUDA sources for every architecture without warnings or register spills."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mvde.cuda import compiler
from mvde.cuda.compiler import (
    ARCHITECTURES,
    SOURCES,
    CompiledKernels,
    compile_kernels,
    kernel_resources,
    load_cubin,
    nvrtc_version,
)
from mvde.errors import BackendError, MissingDependencyError, UsageError

KERNELS = {
    "postprocess": {
        f"mvde_{kind}_{suffix}"
        for kind in ("postprocess_patch_per_warp", "postprocess_patch_per_block", "convert_depth")
        for suffix in ("f32", "f16", "bf16")
    },
    "preprocess": {"mvde_preprocess"},
}
# The others take half a minute of CPU time in total.
FAST = "sm_87"


def compiler_warnings(log: str) -> list[str]:
    """Warnings and errors in the compiler's log."""
    return [line for line in log.splitlines() if re.search(r"\b(warning|error|remark)\b", line, re.IGNORECASE)]


def skip_without_nvrtc(architecture=FAST):
    try:
        version = nvrtc_version()
        import cuda.core  # noqa: F401
    except (MissingDependencyError, ImportError) as error:
        pytest.skip(f"cuda-core and NVRTC are not installed: pip install 'mvde[cuda]' ({error})")
    if architecture in ("sm_100", "sm_120") and version < (12, 8):
        pytest.skip(f"NVRTC {version} does not know {architecture}")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "architecture", [name if name == FAST else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_sources_compile_without_warnings_and_spills(source, architecture):
    skip_without_nvrtc(architecture)
    compiled = compile_kernels(source, architecture)
    assert compiled.cubin.startswith(b"\x7fELF")
    assert compiler_warnings(compiled.log) == []
    resources = {kernel.kernel: kernel for kernel in kernel_resources(compiled.log)}
    assert set(resources) == KERNELS[source]
    for kernel in resources.values():
        assert (kernel.spill_store_bytes, kernel.spill_load_bytes, kernel.stack_bytes) == (0, 0, 0), kernel
        assert kernel.static_shared_bytes == 0  # shared memory is dynamic, as in the launch plan
        assert kernel.num_registers <= 64, kernel  # four blocks of 256 threads on a multiprocessor's 65,536 registers


def test_a_warning_would_be_noticed(tmp_path, monkeypatch):
    skip_without_nvrtc()
    (tmp_path / "postprocess.cu").write_text('extern "C" __global__ void kernel(float* a) { int unused; a[0] = 1.0f; }')
    monkeypatch.setattr(compiler, "_source_dir", lambda: tmp_path)
    assert any("unused" in line for line in compiler_warnings(compile_kernels("postprocess", FAST).log))


def test_an_error_of_the_compiler_is_shown(tmp_path, monkeypatch):
    skip_without_nvrtc()
    (tmp_path / "postprocess.cu").write_text("this is not C++")
    monkeypatch.setattr(compiler, "_source_dir", lambda: tmp_path)
    with pytest.raises(BackendError, match=r"(?s)postprocess\.cu for sm_87: .*error"):
        compile_kernels("postprocess", FAST)


@pytest.mark.parametrize(("source", "architecture"), [("matmul", FAST), ("postprocess", "compute_87; rm")])
def test_unknown_names_are_refused(source, architecture):
    with pytest.raises(UsageError):
        compile_kernels(source, architecture)


@pytest.fixture
def counted_compiler(tmp_path, monkeypatch):
    """Architectures compiled so far, recorded by a fake compiler with its own source file."""
    skip_without_nvrtc()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "preprocess.cu").write_text("// first")
    calls = []

    def compile_once(source, architecture):
        calls.append(architecture)
        return CompiledKernels(b"\x7fELF" + architecture.encode() + bytes([len(calls)]), "")

    monkeypatch.setattr(compiler, "_source_dir", lambda: tmp_path / "src")
    monkeypatch.setattr(compiler, "compile_kernels", compile_once)
    return calls


def test_a_cubin_is_compiled_once(counted_compiler, tmp_path):
    first = load_cubin("preprocess", FAST, tmp_path / "cache")
    assert load_cubin("preprocess", FAST, tmp_path / "cache") == first
    assert counted_compiler == [FAST]
    assert load_cubin("preprocess", "sm_90", tmp_path / "cache") != first


def test_a_changed_source_is_compiled_anew(counted_compiler, tmp_path):
    first = load_cubin("preprocess", FAST, tmp_path / "cache")
    (tmp_path / "src" / "shared.cuh").write_text("// second")
    assert load_cubin("preprocess", FAST, tmp_path / "cache") != first


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"\x00" * 100])
def test_a_damaged_cache_entry_is_replaced(counted_compiler, tmp_path, damage):
    first = load_cubin("preprocess", FAST, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage)
    again = load_cubin("preprocess", FAST, tmp_path / "cache")
    assert len(counted_compiler) == 2
    assert again[:-1] == first[:-1]
    assert load_cubin("preprocess", FAST, tmp_path / "cache") == again


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(counted_compiler, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert load_cubin("preprocess", FAST, tmp_path / "file" / "cache").startswith(b"\x7fELF")


def test_the_cache_lies_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiler.default_cache_dir() == tmp_path / "mvde" / "cubin"


CALLER = """
#include "launch.h"
#include <cstdio>
int main() {
  mvde_cuda::PostprocessParams params{};
  const int refused = mvde_cuda::enqueue_postprocess(mvde_cuda::kRawFloat32, params, nullptr);
  params.batch = 1, params.height = params.width = 32, params.patch = 16, params.num_columns = 1;
  const int launched = mvde_cuda::enqueue_postprocess(mvde_cuda::kRawFloat32, params, nullptr);
  std::printf("%d %d", refused == cudaErrorInvalidValue, launched);
}
"""


@pytest.mark.slow
def test_nvcc_builds_the_same_sources_for_cpp_users(tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed; NVRTC compiles the same sources in the tests above")
    kernels = Path(__file__).resolve().parents[2] / "cpp" / "kernels"
    (tmp_path / "caller.cpp").write_text(CALLER)
    sources = [str(kernels / "launch.cu"), str(tmp_path / "caller.cpp")]
    options = [
        "-std=c++17",
        "-arch=sm_87",
        "-Werror",
        "all-warnings",
        "-I",
        str(kernels),
        "-o",
        str(tmp_path / "caller"),
    ]
    done = subprocess.run([nvcc, *options, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    called = subprocess.run([str(tmp_path / "caller")], capture_output=True, text=True, check=True).stdout.split()
    assert called[0] == "1"
    assert called[1] != "0" or shutil.which("nvidia-smi")  # without a device the launch error is returned


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spilling' for 'sm_90'
ptxas info    : Function properties for spilling
ptxas         .     48 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 48 bytes cumulative stack size, 1024 bytes smem
"""


def test_resources_are_read_from_the_log():
    (kernel,) = kernel_resources(LOG)
    assert kernel == ("spilling", 255, 48, 12, 16, 1024, 1)


def test_a_log_of_another_form_is_an_error():
    with pytest.raises(BackendError, match="registers"):
        kernel_resources("ptxas info : Compiling entry function 'a' for 'sm_90'\nnothing more")
