"""Conditions of a run, read from fake Linux system files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mvde.bench import nvml
from mvde.bench.conditions import Conditions, ConditionWatch

QUIET = Conditions(0.0, 0.0, 0, 0.0, (2990.0, 3000.0), 50.0, ())


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_first_device", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stat(root: Path, user: int, idle: int, steal: int) -> None:
    """Write /proc/stat of three CPUs: two available to this process, the third busy."""
    line = f"{user} 0 0 {idle} 0 0 0 {steal} 0 0"
    write(
        root, "proc/stat", f"cpu 1 1 1 1 1 1 1 1 0 0\ncpu0 {line}\ncpu1 {line}\ncpu2 9999 0 0 0 0 0 0 0 0 0\nintr 1\n"
    )


def test_steal_and_other_load_are_fractions_of_this_process_cpus(tmp_path: Path) -> None:
    seconds = iter((1.0, 2.0))
    stat(tmp_path, user=1000, idle=1000, steal=10)
    with ConditionWatch(tmp_path, lambda: next(seconds)) as watch:
        stat(tmp_path, user=1080, idle=1110, steal=20)
    found = watch.conditions()
    # Per CPU: 80 ticks busy, 110 idle, 10 stolen. This process used 1 s = 100 of the 160 busy ticks.
    assert found.steal == pytest.approx(20 / 400)
    assert found.other_load == pytest.approx(60 / 400)
    assert [text.split(" ")[0] for text in found.warnings] == ["the", "other"]


def test_throttling_and_quotas_are_counted(tmp_path: Path) -> None:
    counters = {
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": (3, 8),
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": (0, 2),
        "sys/fs/cgroup/cpu.stat": ("usage_usec 5\nthrottled_usec 1000", "usage_usec 9\nthrottled_usec 251000"),
    }
    for name, (before, _) in counters.items():
        write(tmp_path, name, str(before))
    with ConditionWatch(tmp_path) as watch:
        for name, (_, after) in counters.items():
            write(tmp_path, name, str(after))
    found = watch.conditions()
    assert (found.num_throttles, found.quota_ms) == (7, 250.0)
    assert len(found.warnings) == 2


def test_a_falling_clock_and_heat_are_seen_while_it_runs(tmp_path: Path) -> None:
    clock = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"
    write(tmp_path, clock.format(0), "3000000")
    write(tmp_path, clock.format(1), "800000")  # idle; the fastest CPU counts
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "50000")
    with ConditionWatch(tmp_path) as watch:
        write(tmp_path, clock.format(0), "1800000")
        write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "95000")
        time.sleep(0.6)  # two samples at an interval of 0.25 s
        write(tmp_path, clock.format(0), "3000000")
        write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "60000")
    found = watch.conditions()
    assert found.clock_mhz == (1800.0, 3000.0)
    assert found.max_temperature_c == 95
    assert found.warnings == ("the clock fell from 3000 to 1800 MHz",)


def test_a_system_that_tells_nothing_warns_of_nothing(tmp_path: Path) -> None:
    with ConditionWatch(tmp_path) as watch:
        pass
    assert watch.conditions() == Conditions(None, None, None, None, None, None, ())
    assert watch.conditions().warnings == QUIET.warnings == ()


def test_a_slowed_gpu_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "slowdown_reasons", lambda: ("power cap",))
    with ConditionWatch(tmp_path) as watch:
        pass
    assert watch.conditions().warnings == ("the GPU was slowed down: power cap",)
