"""Asynchronous kernel launches on the caller's stream and device memory; no allocation, no synchronisation."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from mvde.cuda.compiler import load_cubin
from mvde.cuda.postprocess import LaunchPlan, PostprocessParams, plan_postprocess
from mvde.cuda.preprocess import PreprocessParams, plan_preprocess
from mvde.errors import BackendError, MissingDependencyError


class DeviceKernels:
    """The kernels of one source, loaded on a device. Launches are asynchronous; device errors are reported later.

    ``device`` is the current ``cuda.core.Device``. Thread-safe.
    """

    def __init__(self, source: str, device: Any, cache_dir: Path | None = None) -> None:
        try:
            from cuda.bindings import driver
            from cuda.core import ObjectCode
        except ImportError as error:
            raise MissingDependencyError.for_extra("cuda-core", "cuda", "launching the CUDA kernels") from error
        self._driver = driver
        self._code = ObjectCode.from_cubin(load_cubin(source, architecture_of(device), cache_dir), name=source)
        self._handles: dict[str, Any] = {}

    def launch(self, plan: LaunchPlan, params: ctypes.Structure, stream: Any) -> None:
        """Enqueue one launch on ``stream``, a ``cuda.core.Stream`` or any object whose ``handle`` is a CUstream.

        The structure is copied before this returns. Raises :class:`BackendError` if the launch fails.
        """
        # The driver expects an array of argument addresses; the kernels take a single structure.
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        threads = (plan.block_threads, 1, 1)
        (status,) = self._driver.cuLaunchKernel(
            self._function(plan.kernel),
            *plan.grid,
            *threads,
            plan.shared_bytes,
            stream.handle,
            ctypes.addressof(arguments),
            0,
        )
        if int(status) != 0:
            raise BackendError(f"CUDA did not launch {plan.kernel} with {plan.grid} blocks of {threads[0]}: {status}")

    def _function(self, name: str) -> Any:
        if name not in self._handles:
            kernel = self._code.get_kernel(name)
            self._handles[name] = self._driver.CUfunction(int(kernel.handle))
        return self._handles[name]


class PostprocessKernels(DeviceKernels):
    """Kernels for depth and patch statistics."""

    def __init__(self, device: Any, cache_dir: Path | None = None) -> None:
        super().__init__("postprocess", device, cache_dir)

    def enqueue(self, params: PostprocessParams, raw_dtype: str, stream: Any) -> None:
        """Enqueue the computation of depth and statistics; raises as :meth:`DeviceKernels.launch`."""
        self.launch(plan_postprocess(params, raw_dtype), params, stream)


class PreprocessKernels(DeviceKernels):
    """Kernels that resize camera frames to model input."""

    def __init__(self, device: Any, cache_dir: Path | None = None) -> None:
        super().__init__("preprocess", device, cache_dir)

    def enqueue(self, params: PreprocessParams, stream: Any) -> None:
        """Enqueue the resizing of one frame; raises as :meth:`DeviceKernels.launch`."""
        self.launch(plan_preprocess(params), params, stream)


def architecture_of(device: Any) -> str:
    """Architecture of a ``cuda.core.Device``, such as ``"sm_87"``."""
    major, minor = device.compute_capability
    return f"sm_{major}{minor}"
