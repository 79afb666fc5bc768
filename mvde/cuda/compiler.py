"""Compile CUDA sources to cubins with NVRTC, with a disk cache; needs neither a GPU nor the CUDA toolkit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mvde.errors import BackendError, MissingDependencyError, OutputError, UsageError
from mvde.files import atomic_write

SOURCES = ("postprocess", "preprocess")

# Turing, Ampere (A100; RTX 30), Orin, Ada, Hopper, Blackwell (B200; RTX 50).
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_120")

_ELF_MAGIC = b"\x7fELF"
_STANDARD = "c++17"


class CompiledKernels(NamedTuple):
    """Machine code for one architecture, and the compiler's log."""

    cubin: bytes
    log: str


class KernelResources(NamedTuple):
    """Resource usage of a kernel per thread or block, as reported by ptxas. Shared memory is the static part."""

    kernel: str
    num_registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    static_shared_bytes: int
    num_barriers: int


def compile_kernels(source: str, architecture: str) -> CompiledKernels:
    """Compile ``source`` (a name in :data:`SOURCES`) for ``architecture``, such as ``"sm_87"``, bypassing the cache.

    Raises :class:`UsageError` for another name, :class:`MissingDependencyError` without cuda-core and NVRTC,
    :class:`BackendError` with the compiler's log on failure.
    """
    path = _source_path(source)
    if not re.fullmatch(r"sm_\d{2,3}[af]?", architecture):
        raise UsageError(f"architecture {architecture!r} is not understood; give sm_ and a number, such as sm_87")
    core = _cuda_core()
    log = io.StringIO()
    options = core.ProgramOptions(
        name=path.name,
        arch=architecture,
        std=_STANDARD,
        include_path=str(path.parent),
        ptxas_options=["-v"],
    )
    try:
        program = core.Program(path.read_text(encoding="utf-8"), "c++", options)
        code = program.compile("cubin", logs=log).code
    except Exception as error:
        detail = log.getvalue().strip() or str(error).strip()
        raise BackendError(f"NVRTC did not compile {path.name} for {architecture}: {detail}") from error
    return CompiledKernels(bytes(code), log.getvalue().replace("\0", "").strip())


def load_cubin(source: str, architecture: str, cache_dir: Path | None = None) -> bytes:
    """Load the machine code of ``source`` for ``architecture`` from the cache, compiling on a miss.

    The key is a hash of all source files, the options and NVRTC's version, so stale entries are never used. The cache
    is ``cache_dir``, by default ``mvde/cubin`` in the user's cache folder; if it is not writable, the code is compiled
    at every start. Raises as :func:`compile_kernels`.
    """
    folder = default_cache_dir() if cache_dir is None else cache_dir
    path = folder / f"{source}-{architecture}-{_cache_key(source, architecture)}.cubin"
    cached = _read_cached(path)
    if cached is not None:
        return cached
    cubin = compile_kernels(source, architecture).cubin
    # With a read-only home folder every start compiles for seconds, but the run must not fail.
    with contextlib.suppress(OutputError, OSError), atomic_write(path) as temporary:
        temporary.write_bytes(hashlib.sha256(cubin).digest() + cubin)
    return cubin


def default_cache_dir() -> Path:
    """``mvde/cubin`` in ``$XDG_CACHE_HOME`` (default: ``~/.cache``)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvde" / "cubin"


def kernel_resources(log: str) -> list[KernelResources]:
    """Parse the resource usage of every kernel from the compiler's log, in order."""
    found = []
    for block in re.split(r"ptxas info\s*: Compiling entry function ", log)[1:]:
        name = re.match(r"'([^']+)'", block)
        if name is None:
            raise BackendError(f"cannot parse the compiler's log: {block[:80]!r}")
        found.append(
            KernelResources(
                kernel=name.group(1),
                num_registers=_number(r"Used (\d+) registers", block),
                stack_bytes=_number(r"(\d+) bytes stack frame", block),
                spill_store_bytes=_number(r"(\d+) bytes spill stores", block),
                spill_load_bytes=_number(r"(\d+) bytes spill loads", block),
                static_shared_bytes=_number(r"(\d+) bytes smem", block, default=0),
                num_barriers=_number(r"used (\d+) barriers", block, default=0),
            )
        )
    return found


def nvrtc_version() -> tuple[int, int]:
    """Version of NVRTC, such as ``(13, 0)``. Raises :class:`MissingDependencyError` if it is not installed."""
    try:
        from cuda.bindings import nvrtc

        status, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:  # the bindings raise RuntimeError without the library
        raise _missing("nvidia-cuda-nvrtc") from error
    if int(status) != 0:
        raise BackendError(f"NVRTC did not report its version: {status}")
    return int(major), int(minor)


def _number(pattern: str, text: str, default: int | None = None) -> int:
    match = re.search(pattern, text)
    if match is not None:
        return int(match.group(1))
    if default is None:
        raise BackendError(f"the compiler's log has no {pattern!r}: {text[:200]!r}")
    return default


def _source_path(source: str) -> Path:
    if source not in SOURCES:
        raise UsageError(f"there is no kernel source {source!r}; it is one of {', '.join(SOURCES)}")
    return _source_dir() / f"{source}.cu"


def _source_dir() -> Path:
    """Folder of the sources: beside this file in an installed package, ``cpp/kernels`` in a source tree."""
    here = Path(__file__).resolve().parent
    candidates = (here / "kernels", here.parents[1] / "cpp" / "kernels")
    for folder in candidates:
        if (folder / "postprocess.cu").is_file():
            return folder
    raise BackendError(f"the CUDA sources are in none of {', '.join(map(str, candidates))}; reinstall mvde")


def _source_files() -> Sequence[Path]:
    folder = _source_dir()
    return sorted(path for pattern in ("*.cu", "*.cuh", "*.h") for path in folder.glob(pattern))


def _cache_key(source: str, architecture: str) -> str:
    _source_path(source)  # raises for an unknown name
    digest = hashlib.sha256(f"{source} {architecture} {_STANDARD} {nvrtc_version()}".encode())
    for path in _source_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _read_cached(path: Path) -> bytes | None:
    """The cached cubin, verified by its SHA-256; None if missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, cubin = content[:32], content[32:]
    intact = cubin.startswith(_ELF_MAGIC) and hashlib.sha256(cubin).digest() == digest
    return cubin if intact else None


def _cuda_core() -> Any:
    nvrtc_version()
    try:
        import cuda.core
    except ImportError as error:
        raise _missing("cuda-core") from error
    return cuda.core


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError.for_extra(package, "cuda", "compiling the CUDA kernels")
