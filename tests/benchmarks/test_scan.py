"""The benchmark of scans: its exact scan, what it counts, its intervals, and the mounting of its rendered views."""

from __future__ import annotations

import multiprocessing
import runpy
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.errors import BackendError
from mvde.runtime.scan_settings import ScanSettings
from mvde.runtime.scan_table import scan_table

SIZE = (96, 96)
SCRIPT = Path(__file__).parents[2] / "benchmarks/scan.py"


@pytest.fixture(scope="module")
def script() -> Any:
    """Names of the script, as attributes."""
    return type("Script", (), {name: staticmethod(value) if callable(value) and not isinstance(value, type) else value
                               for name, value in runpy.run_path(str(SCRIPT)).items()})  # fmt: skip


def test_the_exact_scan_is_the_kth_nearest_obstacle_of_each_sector(script: Any) -> None:
    table = scan_table(Camera.from_fov(57.0, None, SIZE), ScanSettings(0.6, 8.0, 3.0, increment_deg=2.0))
    depth = np.random.default_rng(0).uniform(0.3, 12.0, SIZE).astype(np.float32)
    depth[:, 40:50] = np.inf
    distances: list[list[float]] = [[] for _ in range(table.num_bearings)]
    for sector, value, rho, zeta in zip(
        table.bearing.flat, depth.flat, table.range_factor.flat, table.height_factor.flat, strict=True
    ):
        if sector >= 0 and 0.17 < 0.6 + value * zeta < 1.6 and value * rho <= 10:
            distances[sector].append(value * rho)
    expected = [sorted(d)[table.support - 1] if len(d) >= table.support else np.inf for d in distances]
    found = script.exact_ranges(depth, table)
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert np.isfinite(found).any()
    assert np.isinf(found).any()


def test_missed_is_counted_of_true_obstacles_and_false_of_told_ones(script: Any) -> None:
    inf, nan = np.inf, np.nan
    true = np.array([1.0, 1.0, 1.0, 1.9, 1.9, 2.5, 2.5, inf, inf])
    told = np.array([1.2, 1.3, inf, 2.3, nan, 1.9, 2.1, 1.5, inf])
    assert script.score(true, told) == {"near": 5, "missed": 2, "told": 4, "false": 2}


def test_rooms_that_differ_make_a_share_uncertain(script: Any) -> None:
    alike = script.share(np.full((20, 2), (3, 10)))
    assert alike == (0.3, 0.3, 0.3)
    value, low, high = script.share(np.array([[0, 10], [6, 10]] * 10))
    deviation = 0.3 / np.sqrt(20)  # of the mean of 20 rooms
    assert value == 0.3
    np.testing.assert_allclose([low, high], [0.3 - 1.645 * deviation, 0.3 + 1.645 * deviation], atol=0.02)


def rendered(num: int) -> list[tuple[np.ndarray, ScanSettings]]:
    """Depth in metres and settings of views."""
    views = runpy.run_path(str(SCRIPT))["views"](SIZE, num, 502)
    return [(depth, settings) for _, _, depth, settings in views]


@pytest.mark.slow
def test_the_floor_of_rendered_views_lies_at_height_zero() -> None:
    """Height, pitch and roll of a view are those of its picture: nothing is below the floor, and the floor is seen."""
    pytest.importorskip("moderngl")
    pytest.importorskip("skimage")
    camera, num_floors = Camera.from_fov(57.0, None, SIZE), 0
    # OpenGL's driver stays out of a process that has loaded every engine's library.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            views = pool.submit(rendered, 8).result()
        except BackendError as error:
            pytest.skip(str(error))
    for depth, settings in views:
        table = scan_table(camera, settings)
        seen = np.isfinite(depth)
        heights = settings.height_m + depth[seen] * table.height_factor[seen]
        assert heights.min() > -0.005
        num_floors += (np.abs(heights) < 0.02).mean() > 0.05
    assert num_floors >= 4
