"""Detection of the GPU through its driver, and the reasons for finding none."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mvde.cuda import gpu
from mvde.errors import BackendError, MissingDependencyError


class Status(int):
    """Status code of the bindings: an int with a name."""

    name = "CUDA_ERROR_NO_DEVICE"


def fake_driver(status: int = 0, count: int = 1) -> Any:
    """Fake of the ``cuda.bindings.driver`` calls that describe a device; each returns its status first."""
    kinds = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=7,
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
def _probed_again() -> Iterator[None]:
    gpu._probe.cache_clear()
    yield
    gpu._probe.cache_clear()


def _use_driver(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    monkeypatch.setattr(gpu, "_driver", driver)


def test_a_gpu_is_described_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    _use_driver(monkeypatch, fake_driver)
    assert gpu.find_gpu() == gpu.Gpu("Orin", "8.7", "12.6", 8 << 30, True)
    assert gpu.why_no_gpu() == ""
    assert str(gpu.require_gpu("a test")) == "Orin (compute capability 8.7, driver for CUDA 12.6)"


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (fake_driver(status=100), "finds no device it can use (CUDA_ERROR_NO_DEVICE)"),
        (fake_driver(count=0), "finds no device"),
    ],
)
def test_a_driver_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch, driver: Any, why: str) -> None:
    _use_driver(monkeypatch, lambda: driver)
    assert gpu.find_gpu() is None
    assert why in gpu.why_no_gpu()
    with pytest.raises(BackendError, match="measuring needs an NVIDIA GPU, but the driver finds no device"):
        gpu.require_gpu("measuring")


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(flags: int) -> Any:
        raise RuntimeError("libcuda.so was not found")

    _use_driver(monkeypatch, lambda: SimpleNamespace(cuInit=absent))
    assert gpu.find_gpu() is None
    assert "no NVIDIA driver is installed" in gpu.why_no_gpu()


def test_missing_bindings_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise MissingDependencyError.for_extra("cuda-bindings", "cuda", "using a GPU")

    _use_driver(monkeypatch, missing)
    assert gpu.find_gpu() is None
    assert "pip install 'mvde[cuda]'" in gpu.why_no_gpu()


@pytest.mark.parametrize(("answer", "value"), [((0,), ()), ((0, 5), 5), ((0, 5, 6), (5, 6))])
def test_an_answer_is_what_follows_its_status(answer: tuple[int, ...], value: object) -> None:
    assert gpu.checked(answer) == value


def test_a_failed_call_is_an_error_with_its_name() -> None:
    with pytest.raises(BackendError, match="CUDA answered CUDA_ERROR_NO_DEVICE"):
        gpu.checked((Status(100), None))


def test_capabilities_are_compared_as_numbers() -> None:
    assert gpu.capability("10.0") > gpu.capability("8.9") > gpu.capability("8")
