"""Conditions of a benchmark: steal time, load of other processes, throttling, clocks, temperatures.

Linux counters are read before and after; clocks and temperatures are also sampled four times a second, if available. On
machines that hide them (as virtual machines often do), throttling still shows as drift.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mvde.bench import nvml

_PERIOD_S = 0.25
_STEAL_LIMIT = 0.01
_OTHER_LIMIT = 0.05
_CLOCK_LIMIT = 0.90


@dataclass(frozen=True)
class Conditions:
    """Measurement conditions; fractions are of the time of this process's CPUs, ``None`` is unknown.

    ``steal`` went to other virtual machines, ``other_load`` to other processes. ``num_throttles`` counts the CPUs'
    thermal throttling events, ``quota_ms`` is the time this process was throttled by a container's CPU quota.
    ``clock_mhz`` is (lowest, highest) of the fastest CPU at each sample.
    """

    steal: float | None
    other_load: float | None
    num_throttles: int | None
    quota_ms: float | None
    clock_mhz: tuple[float, float] | None
    max_temperature_c: float | None
    gpu_slowdowns: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence per condition that makes the times unreliable."""
        found = []
        if self.steal is not None and self.steal > _STEAL_LIMIT:
            found.append(f"the hypervisor gave {self.steal:.1%} of the CPUs' time to other virtual machines")
        if self.other_load is not None and self.other_load > _OTHER_LIMIT:
            found.append(f"other processes used {self.other_load:.0%} of the CPUs' time")
        if self.num_throttles:
            found.append(f"the CPU was thermally throttled {self.num_throttles} times")
        if self.quota_ms:
            found.append(f"the container's CPU quota throttled this process for {self.quota_ms:.0f} ms")
        if self.clock_mhz is not None and self.clock_mhz[0] < _CLOCK_LIMIT * self.clock_mhz[1]:
            found.append(f"the clock fell from {self.clock_mhz[1]:.0f} to {self.clock_mhz[0]:.0f} MHz")
        if self.gpu_slowdowns:
            found.append(f"the GPU was slowed down: {', '.join(self.gpu_slowdowns)}")
        return tuple(found)


class ConditionWatch:
    """Context manager around a measurement; :meth:`conditions` returns its conditions afterwards."""

    def __init__(self, root: Path = Path("/"), process_s: Callable[[], float] | None = None) -> None:
        """Watch the files under ``root``; ``process_s`` returns the CPU seconds of this process."""
        self._root = root
        self._process_s = process_s or _process_s
        cpus = root / "sys/devices/system/cpu"
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._temperatures = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._clocks_mhz: list[float] = []
        self._temperatures_c: list[float] = []
        self._slowdowns: set[str] = set()
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> ConditionWatch:
        self._before = self._read()
        self._sample()
        if self._clocks or self._temperatures or nvml.energy_uj() is not None:
            self._sampler = threading.Thread(target=self._run, name="mvde-conditions", daemon=True)
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()
        self._sample()
        self._after = self._read()

    def conditions(self) -> Conditions:
        """Return the conditions between entry and exit of the context."""
        before, after = self._before, self._after
        steal, other = _shares(before.cpu_ticks, after.cpu_ticks, after.process_s - before.process_s)
        return Conditions(
            steal=steal,
            other_load=other,
            num_throttles=_difference(before.num_throttles, after.num_throttles),
            quota_ms=None if (us := _difference(before.quota_us, after.quota_us)) is None else us / 1e3,
            clock_mhz=(min(self._clocks_mhz), max(self._clocks_mhz)) if self._clocks_mhz else None,
            max_temperature_c=max(self._temperatures_c) if self._temperatures_c else None,
            gpu_slowdowns=tuple(sorted(self._slowdowns)),
        )

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self._sample()

    def _sample(self) -> None:
        clocks = [number for path in self._clocks if (number := _number(path)) is not None]
        if clocks:
            self._clocks_mhz.append(max(clocks) / 1e3)
        self._temperatures_c += [number / 1e3 for path in self._temperatures if (number := _number(path)) is not None]
        self._slowdowns.update(nvml.slowdown_reasons())

    def _read(self) -> _Reading:
        throttles = [number for path in self._throttles if (number := _number(path)) is not None]
        return _Reading(
            cpu_ticks=_cpu_ticks(self._root / "proc/stat"),
            process_s=self._process_s(),
            num_throttles=sum(throttles) if throttles else None,
            quota_us=_quota_us(self._root / "sys/fs/cgroup/cpu.stat"),
        )


@dataclass(frozen=True)
class _Reading:
    """Counters at one moment: CPU ticks by kind over this process's CPUs, CPU seconds of this process, throttling."""

    cpu_ticks: dict[str, int]
    process_s: float
    num_throttles: int | None
    quota_us: int | None


def _shares(before: dict[str, int], after: dict[str, int], process_s: float) -> tuple[float | None, float | None]:
    """Fractions of CPU time stolen by the hypervisor and used by other processes."""
    ticks = {kind: after[kind] - before[kind] for kind in after if kind in before}
    total = sum(ticks.values())
    if total <= 0:
        return None, None
    busy = total - ticks["idle"] - ticks["iowait"] - ticks["steal"]
    own = process_s * os.sysconf("SC_CLK_TCK")
    return ticks["steal"] / total, max(busy - own, 0.0) / total


def _cpu_ticks(path: Path) -> dict[str, int]:
    """Ticks by kind over this process's CPUs; empty if unavailable."""
    kinds = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    mine = {f"cpu{index}" for index in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set()
    sums = dict.fromkeys(kinds, 0)
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            name, *numbers = line.split()
            if name in mine:
                for kind, number in zip(kinds, numbers, strict=False):
                    sums[kind] += int(number)
    except (OSError, ValueError):
        return {}
    return sums


def _quota_us(path: Path) -> int | None:
    """Microseconds for which the control group's CPU quota throttled its processes; ``None`` without a quota."""
    try:
        fields = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
        return int(fields["throttled_usec"])
    except (OSError, ValueError, KeyError):
        return None


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _process_s() -> float:
    times = os.times()
    return times.user + times.system
