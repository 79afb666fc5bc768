"""Measured machine peaks: consistent with an independently timed matrix product and copy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mvde.bench import peaks
from mvde.engines.machine import num_cpus
from mvde.engines.openvino.library import shared_core
from mvde.precision import Precision

NUMPYS_SECONDS = """
import timeit
import numpy as np
a = np.ones((512, 512), np.float32)
print(min(timeit.repeat(lambda: a @ a, number=1, repeat=30)))
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(peaks, "_SIZES", (256, 512))
    monkeypatch.setattr(peaks, "_SECONDS_PER_SIZE", 0.05)
    monkeypatch.setattr(peaks, "_COPY_BYTES", 1 << 20)
    yield
    for cached in (peaks.product_speed, peaks.copy_bytes_per_s, peaks.kernel_speed):
        cached.cache_clear()


def test_the_fp32_peak_is_about_what_numpy_reaches() -> None:
    pytest.importorskip("openvino")
    # One thread in a child process: NumPy's threads wait for each other, 30 times as long on a busy machine.
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", NUMPYS_SECONDS], env=alone, capture_output=True, text=True, check=True)
    numpys = 2 * 512**3 / float(done.stdout)
    # The best of three: with its cores taken, OpenVINO's threads wait for each other as long.
    for _ in range(3):
        peaks.product_speed.cache_clear()
        found = peaks.product_speed(Precision.FP32)
        assert found is not None
        if found.large_flops_per_s > numpys / 8:
            break
    # Good libraries are within a factor of two; a wrong operation count or half-width precision would be a
    # factor of four or more; eight allows for load during one of the two. NumPy uses one thread.
    assert numpys / 8 < found.large_flops_per_s <= found.best_flops_per_s < numpys * 8 * num_cpus()


def test_a_lower_precision_runs_as_itself_or_not_at_all() -> None:
    pytest.importorskip("openvino")
    capabilities = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, capability in ((Precision.BF16, "BF16"), (Precision.FP16, "FP16")):
        assert (peaks.product_speed(precision) is not None) == (capability in capabilities), precision
    assert peaks.product_speed(Precision.FP8) is None


def test_the_peak_is_measured_once() -> None:
    pytest.importorskip("openvino")
    first = peaks.product_speed(Precision.FP32)
    started = time.perf_counter()
    assert peaks.product_speed(Precision.FP32) == first
    assert time.perf_counter() - started < 0.01


def test_without_openvino_numpy_stands_in_for_fp32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert peaks.product_speed(Precision.FP32) is not None
    assert peaks.product_speed(Precision.BF16) is None


def test_bytes_per_second_are_the_depth_maps_size_over_its_time() -> None:
    speed = peaks.kernel_speed((64, 96), 16, ("mean", "var", "grad"))
    assert speed.kernel_gb_per_s * speed.median_ms * 1e6 == pytest.approx(64 * 96 * 4)
    assert speed.copy_gb_per_s > 0
    assert peaks.copy_bytes_per_s() > 1e8, "a machine that copies less than 0.1 GB/s did not measure seconds"
