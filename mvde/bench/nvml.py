"""NVML through cuda-bindings: energy and throttle reasons of the first GPU; inactive without a GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# Bits of nvmlClocksEventReasons that indicate throttling; idling and user-set clocks are excluded.
_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


@lru_cache(maxsize=1)
def _first_device() -> tuple[Any, Any] | None:
    """NVML module and handle of the first GPU; ``None`` if the package, the driver or the GPU is missing."""
    try:
        from cuda.bindings import nvml
    except ImportError:
        return None
    try:
        nvml.init_v2()
        return nvml, nvml.device_get_handle_by_index_v2(0)
    except Exception:  # noqa: BLE001 - the package's errors share no base class, and each means there is no GPU
        return None


def energy_uj() -> int | None:
    """Microjoules used by the first GPU since its driver was loaded; ``None`` if unsupported."""
    device = _first_device()
    if device is None:
        return None
    nvml, handle = device
    try:
        return int(nvml.device_get_total_energy_consumption(handle)) * 1000  # from millijoules
    except Exception:  # noqa: BLE001 - GPU without this counter
        return None


def slowdown_reasons() -> tuple[str, ...]:
    """Current throttle reasons of the first GPU, in words; empty if none or unsupported."""
    device = _first_device()
    if device is None:
        return ()
    nvml, handle = device
    try:
        bits = int(nvml.device_get_current_clocks_event_reasons(handle))
    except Exception:  # noqa: BLE001 - unsupported by this GPU
        return ()
    return tuple(words for bit, words in _REASONS.items() if bits & bit)
