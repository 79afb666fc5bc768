"""The columns lo, hi and near of a session, bit for bit those of the runtime, from the same calibration file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde.calibration.interval_record import HeldOutRecord, IntervalsRecord, IntervalTable, NearestTable
from mvde.calibration.record import Calibration, CameraRecord, fp32_graph_sha256, write_calibration
from mvde.runtime.depth import DepthRuntime
from tests.cpp.ctypes_session import HAS_OPENVINO, NEEDS_OPENVINO, Session

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(not HAS_OPENVINO, reason=NEEDS_OPENVINO)

SIZE = (64, 96)
COLUMNS = {"lo": 7, "grad": 2, "hi": 8, "mean": 0, "near": 9}
"""Names of columns, with their mvde_stat."""


@pytest.fixture
def calibration(engine_folder: Path, tmp_path: Path) -> Path:
    """A file of a frame's camera, whose bins the tiny engine's depth of 0.5 to 4.5 m falls into."""
    with DepthRuntime.load(engine_folder) as runtime:
        manifest = runtime.manifest
    held = HeldOutRecord(
        num_scenes=40, num_frames=40, num_patches=9, patches=0.9, scenes=0.9, worst_scenes=0.9, bins=(0.9,) * 4,
        nearest=0.95, width=0.9,
    )  # fmt: skip
    intervals = IntervalsRecord(
        coverage=0.9,
        nearest_coverage=0.95,
        mean=IntervalTable((2.3, 2.45, 2.6), (1 / 1.3, 0.811, 0.77, 0.7), (1.1, 1.21, 1 / 0.7, 1.5)),
        nearest=NearestTable((1.0, 1.7), (0.85, 0.7, 1 / 3)),
        camera_factor=(1.0, 1.0),
        held_out=held,
    )
    made = Calibration(
        name=manifest.name,
        created="2026-01-01T00:00:00+00:00",
        graph_sha256=fp32_graph_sha256(manifest),
        engine="openvino:fp32",
        depth_kind=manifest.depth_kind,
        resolution=manifest.resolution,
        fit="stretch",
        frame=SIZE,
        camera=CameraRecord(90.0, 90.0, 47.5, 31.5),
        intervals=intervals,
    )
    write_calibration(made, tmp_path / "a.calibration.json")
    return tmp_path / "a.calibration.json"


def test_a_session_gives_the_runtimes_bits(
    engine_folder: Path, calibration: Path, random_images: Callable[..., np.ndarray]
) -> None:
    columns = (ctypes.c_int32 * len(COLUMNS))(*COLUMNS.values())
    session = Session(
        engine_folder, SIZE, stats=columns, num_stats=len(COLUMNS), calibration_path=str(calibration).encode()
    )
    with DepthRuntime.load(engine_folder, stats=tuple(COLUMNS), calibration=calibration) as runtime:
        for seed in range(3):
            image = random_images(*SIZE, 3, seed=seed)
            found, expected = session.infer(image, num_patches=6, num_stats=len(COLUMNS)), runtime.infer(image)
            np.testing.assert_array_equal(found.stats, expected.stats)
    session.close()
