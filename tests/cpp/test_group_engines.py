"""A group of libmvde gives what Python's runtime with a deadline gives, with OpenVINO's engines."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde import native
from mvde.calibration.record import CameraRecord, write_calibration
from mvde.engines.store import find
from mvde.errors import CalibrationError, UsageError
from mvde.runtime.on_time import OnTimeRuntime, load_on_time
from mvde.runtime.stabilize import Stabilization
from mvde.runtime.steady_stream import SteadyMaps
from tests.runtime.test_calibrated import calibration_of

pytest.importorskip("openvino")
LIBRARY = native.library_path()
pytestmark = pytest.mark.skipif(
    LIBRARY is None or not LIBRARY.with_name("libmvde_openvino.so").is_file(),
    reason="`make native` builds libmvde and its backend",
)
SIZE = (48, 64)


class Beginning(ctypes.Structure):
    """First fields of a structure, and room for the others, which its defaults set."""

    _fields_ = (("struct_size", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 1020))


class Options(Beginning):
    """``mvde_session_options``: frames, after ``format``."""

    def set_pointer(self, offset: int, pointer: int) -> None:
        """Set a member that is a pointer."""
        ctypes.memmove(ctypes.addressof(self) + offset, ctypes.byref(ctypes.c_void_p(pointer)), 8)


CALIBRATION_PATH, STABILIZATION = 64, 88
"""Offsets in ``mvde_session_options``."""


class Outputs(ctypes.Structure):
    """``mvde_outputs``: depth and statistics."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("depth_m", ctypes.c_void_p),
        ("depth_capacity", ctypes.c_int64),
        ("depth_mm", ctypes.c_void_p),
        ("depth_mm_capacity", ctypes.c_int64),
        ("stats", ctypes.c_void_p),
        ("stats_capacity", ctypes.c_int64),
        ("rest", ctypes.c_uint8 * 960),
    )


class Frame(ctypes.Structure):
    """``mvde_frame``: the picture and its size."""

    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("format", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("rest", ctypes.c_uint8 * 960),
    )


@pytest.fixture
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(LIBRARY))
    found.mvde_last_error.restype = ctypes.c_char_p
    return found


def options_of(library: ctypes.CDLL) -> Options:
    options = Options()
    library.mvde_session_defaults(ctypes.byref(options))
    ctypes.memmove(ctypes.addressof(options) + 8, (ctypes.c_int64 * 2)(*SIZE), 16)  # frame_height, frame_width
    return options


def paths_of(folders: list[Path]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(folders))(*(str(one).encode() for one in folders))


@pytest.fixture
def group(library: ctypes.CDLL, engines_of_two_sizes: list[Path]) -> Iterator[ctypes.c_void_p]:
    handle, options = ctypes.c_void_p(), options_of(library)
    paths, deadline = paths_of(engines_of_two_sizes), ctypes.c_double(5000)
    zero = ctypes.c_int64(0)
    status = library.mvde_group_open(paths, 2, ctypes.byref(options), deadline, zero, zero, ctypes.byref(handle))
    assert status == 0, library.mvde_last_error()
    yield handle
    library.mvde_group_close(handle)


def inferred(
    library: ctypes.CDLL, group: ctypes.c_void_p, image: np.ndarray, age_ms: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Depth and statistics of a frame that is ``age_ms`` old, and the engine that was used."""
    depth, stats = np.zeros(SIZE, np.float32), np.zeros((6, 3), np.float32)
    frame, outputs, used = Frame(), Outputs(), ctypes.c_int32(-1)
    library.mvde_frame_defaults(ctypes.byref(frame))
    library.mvde_outputs_defaults(ctypes.byref(outputs))
    frame.data, frame.height, frame.width = image.ctypes.data, *SIZE
    outputs.depth_m, outputs.depth_capacity = depth.ctypes.data, depth.size
    outputs.stats, outputs.stats_capacity = stats.ctypes.data, stats.size
    age = ctypes.c_double(age_ms)
    status = library.mvde_group_infer(group, ctypes.byref(frame), age, ctypes.byref(outputs), ctypes.byref(used))
    assert status == 0, library.mvde_last_error()
    return depth, stats, used.value


@pytest.mark.parametrize(("age_ms", "index"), [(0.0, 1), (4999.99, 0)])
def test_depth_and_statistics_are_pythons_at_either_resolution(
    library: ctypes.CDLL,
    group: ctypes.c_void_p,
    engines_of_two_sizes: list[Path],
    random_images: Callable[..., np.ndarray],
    age_ms: float,
    index: int,
) -> None:
    image = random_images(*SIZE, 3)
    depth, stats, used = inferred(library, group, image, age_ms)
    assert used == index
    with load_on_time(engines_of_two_sizes, 5000) as runtime:
        assert isinstance(runtime, OnTimeRuntime)
        expected = runtime.infer(image, age_ms=age_ms)
    assert expected.placement.target_size == ((32, 48), (64, 96))[index]
    np.testing.assert_array_equal(depth, expected.depth)
    np.testing.assert_array_equal(stats, expected.stats)


def test_both_refuse_a_grid_with_the_same_words(library: ctypes.CDLL, engines_of_two_sizes: list[Path]) -> None:
    handle, options = ctypes.c_void_p(), options_of(library)
    rows = columns = ctypes.c_int64(5)
    deadline = ctypes.c_double(33)
    paths = paths_of(engines_of_two_sizes)
    assert library.mvde_group_open(paths, 2, ctypes.byref(options), deadline, rows, columns, ctypes.byref(handle)) != 0
    with pytest.raises(UsageError) as refused:
        load_on_time(engines_of_two_sizes, 33, grid=(5, 5))
    assert library.mvde_last_error().decode() == str(refused.value)


def test_steady_depth_with_a_calibration_for_each_engine_is_pythons(
    library: ctypes.CDLL,
    engines_of_two_sizes: list[Path],
    random_images: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    options, settings, handle = options_of(library), Beginning(), ctypes.c_void_p()
    library.mvde_stabilization_defaults(ctypes.byref(settings))
    folder = ctypes.c_char_p(str(tmp_path).encode())
    options.set_pointer(CALIBRATION_PATH, ctypes.cast(folder, ctypes.c_void_p).value or 0)
    options.set_pointer(STABILIZATION, ctypes.addressof(settings))
    paths, deadline, zero = paths_of(engines_of_two_sizes), ctypes.c_double(5000), ctypes.c_int64(0)

    def opened() -> str:
        status = library.mvde_group_open(paths, 2, ctypes.byref(options), deadline, zero, zero, ctypes.byref(handle))
        return library.mvde_last_error().decode() if status else ""

    def refused() -> str:
        with pytest.raises(CalibrationError) as error:
            load_on_time(engines_of_two_sizes, 5000, calibration=tmp_path)
        return str(error.value)

    assert opened() == refused() != ""  # there is none
    small, large = (
        calibration_of(find(folder).manifest, scale=scale, frame=SIZE)
        for folder, scale in zip(engines_of_two_sizes, (1.0, 1.1), strict=True)
    )
    write_calibration(small, tmp_path / "tiny-32x48.calibration.json")
    another = dataclasses.replace(large, camera=CameraRecord(50.0, 50.0, 31.5, 23.5))
    write_calibration(another, tmp_path / "tiny-64x96.calibration.json")
    assert opened() == refused() != ""  # the cameras differ
    write_calibration(large, tmp_path / "tiny-64x96.calibration.json")
    assert opened() == ""
    picture = random_images(*SIZE, 3)
    with load_on_time(engines_of_two_sizes, 5000, calibration=tmp_path) as runtime:
        steady = SteadyMaps(runtime.manifest.depth_kind, Stabilization())
        for number, age_ms in enumerate((0.0, 0.0, 4999.99, 4999.99, 0.0)):
            image = picture + np.uint8(number)
            depth, stats, _ = inferred(library, handle, image, age_ms)
            expected = runtime.infer_next(image, steady, age_ms=age_ms)
            assert expected.num_steady == number + 1
            np.testing.assert_array_equal(depth, expected.depth)
            np.testing.assert_array_equal(stats, expected.stats)
    library.mvde_group_close(handle)
