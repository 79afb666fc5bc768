"""Preconditions of building or loading a plan: GPU, driver, compute capabilities, versions, disk space."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.cuda.gpu import capability, find_gpu, why_no_gpu
from mvde.engines.tensorrt.api import LIBRARIES, version_of
from mvde.errors import BackendError, IncompatibleEngineError, OutputError, UsageError
from mvde.precision import Precision
from mvde.records import CudaRecord, NetworkRecord

if TYPE_CHECKING:
    from mvde.cuda.gpu import Gpu
    from mvde.engines.tensorrt.api import Api
    from mvde.engines.tensorrt.choices import TensorRtOptions
    from mvde.records import EngineRecord

_DRIVERS = {"11": "R450", "12": "R525", "13": "R580"}
"""Minimum Linux driver per CUDA major version: https://docs.nvidia.com/deploy/cuda-compatibility/ (sufficient for all
its minor versions)."""

_PLAN_PER_GRAPH = 3.0
"""Required disk space as a multiple of the graph's size: lowered graph, plan, and half as much in reserve (TensorRT-RTX
1.7 wrote 1.3 times an fp32 graph of 12 MB)."""


def chosen_capabilities(
    api: Api, tensorrt: TensorRtOptions, gpu: Gpu | None, *, without_device: bool
) -> tuple[str, ...]:
    """Compute capabilities to build for: those named, or this GPU's.

    Raises :class:`UsageError` if none is named for TensorRT-RTX without a device, or if any is named for TensorRT,
    which builds for the GPU it runs on.
    """
    named = tensorrt.compute_capabilities
    if not api.is_rtx:
        if named:
            raise UsageError(
                "TensorRT builds for the GPU it runs on; leave --set compute_capability out, or build tensorrt-rtx"
            )
        return (gpu.compute_capability,) if gpu is not None else ()
    if not named and without_device:
        raise UsageError(
            "--without-device needs --set compute_capability=CC of the GPU it is for, one of "
            f"{', '.join(api.capabilities())}"
        )
    chosen = named or ((gpu.compute_capability,) if gpu is not None else ())
    for text in chosen:
        api.capability_value(text)  # raises for an unsupported one
    return chosen


def check_device(api: Api, *, without_device: bool) -> Gpu | None:
    """The GPU of this machine; ``None`` only for TensorRT-RTX ``without_device``.

    Raises :class:`BackendError` with a remedy if there is no GPU or its driver is too old.
    """
    if without_device:
        if not api.is_rtx:
            raise BackendError(
                "TensorRT times its kernels on the GPU that an engine is for, so it cannot build without one; build on "
                "the robot, or build tensorrt-rtx for its compute capability"
            )
        return None  # the target is another machine's GPU; ignore the local one
    return require_device(api.library.backend)


def require_device(backend: str) -> Gpu:
    """The GPU of this machine. Raises :class:`BackendError` if there is none or its driver is too old."""
    gpu = find_gpu()
    if gpu is None:
        way_out = (
            "build on the machine that has the GPU, or here with --without-device --set compute_capability=CC and "
            "measure it there with `mvde prove ENGINE`"
            if backend == "tensorrt-rtx"
            else "build on the machine that has the GPU"
        )
        title = LIBRARIES[backend].title
        raise BackendError(f"{title} needs an NVIDIA GPU to measure and run an engine, but {why_no_gpu()}; {way_out}")
    if (reason := old_driver(backend, gpu)) is not None:
        raise BackendError(reason)
    return gpu


def least_capability(precision: Precision) -> str:
    """Minimum compute capability for a precision; 7.5 is the oldest that TensorRT 10 and later support."""
    match precision:
        case Precision.FP32 | Precision.FP16 | Precision.INT8:
            return "7.5"
        case Precision.BF16:
            return "8.0"
        case Precision.FP8:
            return "8.9"


def check_arithmetic(precision: Precision, capabilities: tuple[str, ...]) -> None:
    """Raise :class:`BackendError` naming the ``capabilities`` that do not support the precision."""
    least = least_capability(precision)
    lacking = [text for text in capabilities if capability(text) < capability(least)]
    if lacking:
        raise BackendError(
            f"{precision} needs a GPU of compute capability {least} or later, but this engine is for "
            f"{', '.join(lacking)}; build fp16 there"
        )


def check_disk(folder: Path, graph_bytes: int) -> None:
    """Raise :class:`OutputError` stating required and free space if the disk is too full for a build."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    needed, free = int(graph_bytes * _PLAN_PER_GRAPH), shutil.disk_usage(existing).free
    if free < needed:
        raise OutputError(
            f"building in {folder} needs about {needed / 1e6:.0f} MB on disk, but {free / 1e6:.0f} MB are free; "
            "make room, or name another folder with --out"
        )


def old_driver(backend: str, gpu: Gpu) -> str | None:
    """Reason why the driver is too old for the installed library, or ``None``."""
    major = cuda_major(backend)
    if major is None or int(gpu.driver_cuda.split(".")[0]) >= int(major):
        return None
    return (
        f"the driver of {gpu.name} serves CUDA {gpu.driver_cuda}, but the installed {LIBRARIES[backend].title} is made "
        f"for CUDA {major}; install driver {_DRIVERS.get(major, 'of that CUDA')} or later, or the package for CUDA "
        f"{gpu.driver_cuda.split('.')[0]}"
    )


def cuda_major(backend: str) -> str | None:
    """CUDA major version of the installed wheel (``"13"``), or ``None`` if no wheel states it."""
    for major in sorted(_DRIVERS, reverse=True):
        try:
            metadata.version(f"{backend}-cu{major}")
        except metadata.PackageNotFoundError:
            continue
        return major
    return None


def why_not_here(api: Api, record: EngineRecord, gpu: Gpu | None) -> str | None:
    """Reason why a plan cannot run with this library on this GPU, or ``None``."""
    if record.library_version != api.version and not _runs_in(record, api.version):
        return f"it was built with {api.library.title} {record.library_version}, but {api.version} is installed"
    if gpu is None:
        return f"it needs an NVIDIA GPU, but {why_no_gpu()}"
    if (reason := old_driver(record.backend, gpu)) is not None:
        return reason
    built_for = record.cuda.compute_capabilities if record.cuda is not None else ()
    if not _runs_on(built_for, str(record.options.get("hardware", "none")), gpu.compute_capability):
        return (
            f"it was built for compute capability {', '.join(built_for)}, but {gpu.name} has {gpu.compute_capability}"
        )
    return None


def check_here(api: Api, record: EngineRecord, where: Path) -> Gpu:
    """The GPU to run a plan on. Raises :class:`IncompatibleEngineError` with the reason if the plan cannot run."""
    gpu = find_gpu()
    reason = why_not_here(api, record, gpu)
    if gpu is None or reason is not None:
        raise IncompatibleEngineError(
            f"{where} cannot run here: {reason}; build it again: mvde build --engine {record.id}"
        )
    return gpu


def _runs_in(record: EngineRecord, version: str) -> bool:
    """Whether a version-compatible plan loads: same major version, not older than the version that built it."""
    built, here = version_of(record.library_version), version_of(version)
    return bool(record.options.get("version_compatible")) and built[0] == here[0] and built <= here


def _runs_on(built_for: tuple[str, ...], hardware: str, here: str) -> bool:
    if hardware == "ampere-plus":
        return capability(here) >= (8, 0)
    return here in built_for


def cuda_record(
    api: Api, gpu: Gpu | None, capabilities: tuple[str, ...], build_s: float, network: NetworkRecord
) -> CudaRecord:
    """The manifest's record of library, driver, GPUs and build."""
    return CudaRecord(
        cuda_major=cuda_major(api.library.backend),
        driver_cuda=gpu.driver_cuda if gpu is not None else None,
        gpu=gpu.name if gpu is not None else None,
        compute_capabilities=capabilities,
        build_s=build_s,
        network=network,
    )
