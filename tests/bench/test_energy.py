"""Energy counters, on fake Linux system files and a fake NVML."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvde.bench import energy, nvml


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_first_device", lambda: None)


def make_zone(root: Path, zone: str, name: str, energy_uj: int, wraps_uj: int = 1_000_000) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", wraps_uj)):
        (folder / file).write_text(f"{value}\n")
    return folder / "energy_uj"


def test_packages_and_their_memory_are_summed_and_cores_are_not_counted_twice(tmp_path: Path) -> None:
    package = make_zone(tmp_path, "intel-rapl:0", "package-0", 100)
    cores = make_zone(tmp_path, "intel-rapl:0:0", "core", 100)
    memory = make_zone(tmp_path, "intel-rapl:0:1", "dram", 100)
    with energy.measure(energy.counters(tmp_path)) as used:
        package.write_text("500100\n")
        cores.write_text("400100\n")
        memory.write_text("250100\n")
    assert used.joules == {"intel-rapl:0 package-0": 0.5, "intel-rapl:0:1 dram": 0.25}
    assert sum(used.joules.values()) == 0.75


def test_a_counter_that_starts_again_is_carried_over(tmp_path: Path) -> None:
    package = make_zone(tmp_path, "intel-rapl:0", "package-0", 900_000, wraps_uj=1_000_000)
    with energy.measure(energy.counters(tmp_path)) as used:
        package.write_text("200000\n")
    assert sum(used.joules.values()) == pytest.approx(0.3)


def test_without_counters_there_is_no_energy(tmp_path: Path) -> None:
    with energy.measure(energy.counters(tmp_path)) as used:
        pass
    assert used.joules == {}
    assert used.joules == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_counter_that_refuses_is_left_out(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1).chmod(0)
    assert energy.counters(tmp_path) == []


def test_a_counter_with_nonsense_is_left_out(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("many\n")
    assert energy.counters(tmp_path) == []


class FakeNvml:
    """Fake of cuda.bindings.nvml; energy increases by 1500 mJ per reading."""

    def __init__(self) -> None:
        self.millijoules = 0

    def device_get_total_energy_consumption(self, handle: object) -> int:
        self.millijoules += 1500
        return self.millijoules

    def device_get_current_clocks_event_reasons(self, handle: object) -> int:
        return 0x1 | 0x4 | 0x40  # idle, power cap, thermal


def test_a_gpus_energy_and_slowdowns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeNvml(), 0
    monkeypatch.setattr(nvml, "_first_device", lambda: device)
    with energy.measure(energy.counters(tmp_path)) as used:
        pass
    assert used.joules == {"gpu": 1.5}
    assert nvml.slowdown_reasons() == ("power cap", "thermal (hardware)")


@pytest.mark.gpu
def test_the_real_gpu_counts_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if nvml.energy_uj() is None:
        pytest.skip("no NVIDIA GPU that counts energy answers")
    before = nvml.energy_uj()
    assert before is not None
    assert (nvml.energy_uj() or 0) >= before > 0
