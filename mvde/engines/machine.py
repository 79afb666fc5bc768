"""Description of this machine: CPU name and instruction-set features, memory, GPUs."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

# The flags that inference libraries select kernels by; the others in /proc/cpuinfo are irrelevant.
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimdhp", "fphp", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip


@lru_cache(maxsize=1)
def cpu_features() -> tuple[str, ...]:
    """Features of this CPU, in the order of :data:`FEATURES`; empty if unknown."""
    flags = set(_cpuinfo_field("flags", "Features").split())
    return tuple(feature for feature in FEATURES if feature in flags)


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """CPU model name, or the architecture if unknown."""
    return _cpuinfo_field("model name", "Model") or platform.machine()


def num_cpus() -> int:
    """Number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_hyper_threads() -> bool:
    """Whether simultaneous multithreading is active; false if unknown."""
    siblings = Path("/sys/devices/system/cpu/smt/active")
    try:
        return siblings.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def memory_bytes() -> int:
    """Physical memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes() -> int:
    """Peak resident set size of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """Resident set size of this process, in bytes (on systems other than Linux, its peak)."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory_bytes()
    return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def nvidia_gpus() -> list[str]:
    """One line per NVIDIA GPU (name, memory, driver, compute capability) from ``nvidia-smi``; empty without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def jetson_release() -> str:
    """Release of Jetson Linux, such as ``"R36 (release), REVISION: 4.3"`` (JetPack 6); empty elsewhere."""
    try:
        first = Path("/etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace").splitlines()[:1]
    except OSError:
        return ""
    return ", ".join(part.strip(" #") for part in "".join(first).split(",")[:2])


def _cpuinfo_field(*names: str) -> str:
    """First value of any of the fields in /proc/cpuinfo (x86 and Arm name them differently)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""
