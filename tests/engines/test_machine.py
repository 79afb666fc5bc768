"""Detected machine properties against other sources."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mvde.engines import machine


def test_features_are_those_that_the_kernel_lists() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    found = machine.cpu_features()
    assert found
    assert all(feature in flags for feature in found)
    assert list(found) == [feature for feature in machine.FEATURES if feature in flags]


def test_memory_is_physical_memory() -> None:
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert machine.memory_bytes() == pytest.approx(int(line.split()[1]) * 1024, rel=0.01)
    assert machine.num_cpus() == len(os.sched_getaffinity(0))
    assert 1 << 20 < machine.resident_bytes() < machine.memory_bytes()


def test_gpus_are_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA Orin, 62000 MiB, 540.4.0, 8.7'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.nvidia_gpus() == ["NVIDIA Orin, 62000 MiB, 540.4.0, 8.7"]
    tool.write_text("#!/bin/sh\nexit 9\n")  # as without a driver
    assert machine.nvidia_gpus() == []
