"""The GPU as its driver tells it, and why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mvde.cuda import device
from mvde.errors import BackendError, MissingDependencyError


class Status(int):
    """A status of the bindings: a number with a name."""

    name = "CUDA_ERROR_NO_DEVICE"


def a_driver(status: int = 0, count: int = 1) -> Any:
    """The calls of ``cuda.bindings.driver`` that describe a device, each with its status first."""
    kinds = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=7,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT=16,
        CU_DEVICE_ATTRIBUTE_INTEGRATED=1,
    )
    return SimpleNamespace(
        CUdevice_attribute=kinds,
        cuInit=lambda flags: (Status(status),),
        cuDeviceGetCount=lambda: (0, count),
        cuDeviceGet=lambda index: (0, index),
        cuDeviceGetAttribute=lambda kind, found: (0, kind),
        cuDriverGetVersion=lambda: (0, 12060),
        cuDeviceGetName=lambda length, found: (0, b"Orin\0\0\0"),
        cuDeviceTotalMem=lambda found: (0, 8 << 30),
    )


@pytest.fixture(autouse=True)
def _looked_up_anew() -> Iterator[None]:
    device._look.cache_clear()
    yield
    device._look.cache_clear()


def _with(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    monkeypatch.setattr(device, "_driver", driver)


def test_a_gpu_is_described_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, a_driver)
    assert device.find_gpu() == device.Gpu("Orin", "8.7", "12.6", 8 << 30, 16, True)
    assert device.why_no_gpu() == ""
    assert str(device.require_gpu("a test")) == "Orin (compute capability 8.7, driver for CUDA 12.6)"


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (a_driver(status=100), "finds no device it can use (CUDA_ERROR_NO_DEVICE)"),
        (a_driver(count=0), "finds no device"),
    ],
)
def test_a_driver_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch, driver: Any, why: str) -> None:
    _with(monkeypatch, lambda: driver)
    assert device.find_gpu() is None
    assert why in device.why_no_gpu()
    with pytest.raises(BackendError, match="measuring needs an NVIDIA GPU, but the driver finds no device"):
        device.require_gpu("measuring")


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(flags: int) -> Any:
        raise RuntimeError("libcuda.so was not found")

    _with(monkeypatch, lambda: SimpleNamespace(cuInit=absent))
    assert device.find_gpu() is None
    assert "no NVIDIA driver is installed" in device.why_no_gpu()


def test_missing_bindings_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise MissingDependencyError.for_extra("cuda-bindings", "cuda", "using a GPU")

    _with(monkeypatch, missing)
    assert device.find_gpu() is None
    assert "pip install 'mvde[cuda]'" in device.why_no_gpu()


@pytest.mark.parametrize(("answer", "value"), [((0,), ()), ((0, 5), 5), ((0, 5, 6), (5, 6))])
def test_an_answer_is_what_follows_its_status(answer: tuple[int, ...], value: object) -> None:
    assert device.checked(answer) == value


def test_a_failed_call_is_an_error_with_its_name() -> None:
    with pytest.raises(BackendError, match="CUDA answered CUDA_ERROR_NO_DEVICE"):
        device.checked((Status(100), None))


def test_capabilities_are_compared_as_numbers() -> None:
    assert device.capability("10.0") > device.capability("8.9") > device.capability("8")
