"""Detection of this machine's NVIDIA GPU through the driver, with the reason if there is none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mvde.errors import BackendError, MissingDependencyError

_ATTRIBUTES = {
    "major": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
    "minor": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
    "integrated": "CU_DEVICE_ATTRIBUTE_INTEGRATED",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU: ``compute_capability`` such as ``"8.9"``, ``driver_cuda`` the newest CUDA version its driver supports.

    ``is_integrated`` means that it shares system memory (Jetson). ``memory_bytes`` is the size of its memory.
    """

    name: str
    compute_capability: str
    driver_cuda: str
    memory_bytes: int
    is_integrated: bool

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability}, driver for CUDA {self.driver_cuda})"


def find_gpu() -> Gpu | None:
    """The first GPU visible to this process, or ``None``; :func:`why_no_gpu` then gives the reason."""
    return _probe()[0]


def why_no_gpu() -> str:
    """Reason why :func:`find_gpu` finds none: no bindings, no driver or no device; empty if there is a GPU."""
    return _probe()[1]


def require_gpu(purpose: str) -> Gpu:
    """The GPU. Raises :class:`BackendError` stating what is missing and the ``purpose`` that needs it."""
    gpu, why = _probe()
    if gpu is None:
        raise BackendError(f"{purpose} needs an NVIDIA GPU, but {why}")
    return gpu


def capability(text: str) -> tuple[int, int]:
    """Parse a compute capability: (8, 9) for ``"8.9"``."""
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


@lru_cache(maxsize=1)
def _probe() -> tuple[Gpu | None, str]:
    try:
        driver = _driver()
    except MissingDependencyError as error:
        return None, str(error)
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError:  # raised by the bindings if libcuda.so is missing
        return None, "no NVIDIA driver is installed (libcuda.so is not found)"
    if int(status) != 0:
        return None, f"the driver finds no device it can use ({status.name})"
    if checked(driver.cuDeviceGetCount()) == 0:
        return None, "the driver finds no device"
    return _describe(driver, checked(driver.cuDeviceGet(0))), ""


def _describe(driver: Any, device: Any) -> Gpu:
    kinds = driver.CUdevice_attribute
    values = {
        name: int(checked(driver.cuDeviceGetAttribute(getattr(kinds, kind), device)))
        for name, kind in _ATTRIBUTES.items()
    }
    version = int(checked(driver.cuDriverGetVersion()))
    name = bytes(checked(driver.cuDeviceGetName(256, device)))
    return Gpu(
        name=name.split(b"\0")[0].decode(errors="replace"),
        compute_capability=f"{values['major']}.{values['minor']}",
        driver_cuda=f"{version // 1000}.{version % 1000 // 10}",
        memory_bytes=int(checked(driver.cuDeviceTotalMem(device))),
        is_integrated=bool(values["integrated"]),
    )


def checked(answer: Any) -> Any:
    """Return the result of a ``cuda.bindings`` call without its status (a tuple if there are several values).

    Raises :class:`BackendError` with the status if the call failed.
    """
    status, *values = answer
    if int(status) != 0:
        raise BackendError(f"CUDA answered {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)  # () if there are none


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingDependencyError.for_extra("cuda-bindings", "cuda", "using a GPU") from error
    return driver
