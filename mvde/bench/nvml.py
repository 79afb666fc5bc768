"""NVIDIA's management library, through cuda-bindings: energy and the reasons for lower clocks; absent without a GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# Bits of nvmlClocksEventReasons that mean the GPU was held back; idling, and clocks that somebody set, are left out.
_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


@lru_cache(maxsize=1)
def _first_device() -> tuple[Any, Any] | None:
    """The library and its handle of the first GPU; ``None`` where the package, the driver or the GPU is missing."""
    try:
        from cuda.bindings import nvml
    except ImportError:
        return None
    try:
        nvml.init_v2()
        return nvml, nvml.device_get_handle_by_index_v2(0)
    except Exception:  # noqa: BLE001 - the package's errors share no public base class, and each means: no GPU
        return None


def energy_uj() -> int | None:
    """Microjoules that the first GPU has used since its driver was loaded; ``None`` where it does not tell."""
    device = _first_device()
    if device is None:
        return None
    nvml, handle = device
    try:
        return int(nvml.device_get_total_energy_consumption(handle)) * 1000  # it counts millijoules
    except Exception:  # noqa: BLE001 - a GPU without that counter
        return None


def slowdown_reasons() -> tuple[str, ...]:
    """Why the first GPU runs below its clocks at this moment, in words; empty where it does not, or does not tell."""
    device = _first_device()
    if device is None:
        return ()
    nvml, handle = device
    try:
        bits = int(nvml.device_get_current_clocks_event_reasons(handle))
    except Exception:  # noqa: BLE001 - a GPU that does not tell
        return ()
    return tuple(words for bit, words in _REASONS.items() if bits & bit)
