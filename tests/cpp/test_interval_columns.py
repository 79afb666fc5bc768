"""The columns lo, hi and near of a session, bit for bit those of the runtime, from the same calibration file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mvde import native
from mvde.calibration.interval_record import HeldOutRecord, IntervalsRecord, IntervalTable, NearestTable
from mvde.calibration.record import Calibration, CameraRecord, fp32_graph_sha256, write_calibration
from mvde.runtime.depth import DepthRuntime

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(not native.is_available(), reason="libmvde is not built")

SIZE = (64, 96)
COLUMNS = {"lo": 7, "grad": 2, "hi": 8, "mean": 0, "near": 9}
"""Names of columns, with their mvde_stat."""
REST = ("rest", ctypes.c_uint8 * 1024)  # of a structure, which grows from version to version


class Options(ctypes.Structure):
    """``mvde_session_options``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("format", ctypes.c_int32),
        ("frame_height", ctypes.c_int64),
        ("frame_width", ctypes.c_int64),
        ("fit", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
        ("camera", ctypes.c_void_p),
        ("stats", ctypes.c_void_p),
        ("num_stats", ctypes.c_int32),
        ("invalid_m", ctypes.c_float),
        ("deadline_ms", ctypes.c_int64),
        ("calibration_path", ctypes.c_char_p),
        REST,
    )


class Frame(ctypes.Structure):
    """``mvde_frame``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("format", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        REST,
    )


class Outputs(ctypes.Structure):
    """``mvde_outputs``."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("depth", ctypes.c_void_p),
        ("depth_capacity", ctypes.c_int64),
        ("depth_mm", ctypes.c_void_p),
        ("depth_mm_capacity", ctypes.c_int64),
        ("stats", ctypes.c_void_p),
        ("stats_capacity", ctypes.c_int64),
        REST,
    )


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
    library, session, options = ctypes.CDLL(str(native.library_path())), ctypes.c_void_p(), Options()
    library.mvde_last_error.restype = ctypes.c_char_p
    library.mvde_session_defaults(ctypes.byref(options))
    columns = np.array(list(COLUMNS.values()), np.int32)
    options.frame_height, options.frame_width = SIZE
    options.stats, options.num_stats = columns.ctypes.data, len(columns)
    options.calibration_path = str(calibration).encode()
    opened = library.mvde_open(str(engine_folder).encode(), ctypes.byref(options), ctypes.byref(session))
    assert opened == 0, library.mvde_last_error()
    with DepthRuntime.load(engine_folder, stats=tuple(COLUMNS), calibration=calibration) as runtime:
        for _ in range(3):
            image = random_images(*SIZE, 3)
            frame, outputs = Frame(), Outputs()
            library.mvde_frame_defaults(ctypes.byref(frame))
            library.mvde_outputs_defaults(ctypes.byref(outputs))
            frame.format, frame.data, (frame.height, frame.width) = 0, image.ctypes.data, SIZE
            rows = np.full((6, len(columns)), np.nan, np.float32)
            outputs.stats, outputs.stats_capacity = rows.ctypes.data, rows.size
            assert library.mvde_infer(session, ctypes.byref(frame), ctypes.byref(outputs)) == 0, (
                library.mvde_last_error()
            )
            np.testing.assert_array_equal(rows, runtime.infer(image).stats)
    library.mvde_close(session)
