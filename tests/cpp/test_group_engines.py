"""A group of libmvde gives what Python's runtime with a deadline gives, with OpenVINO's engines."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.calibration.record import CameraRecord, write_calibration
from mvde.engines.store import find
from mvde.errors import CalibrationError, UsageError
from mvde.native.abi import CStabilization
from mvde.runtime.on_time import OnTimeRuntime, load_on_time
from mvde.runtime.stabilize import Stabilization
from mvde.runtime.steady_stream import SteadyMaps
from tests.cpp.ctypes_session import (
    HAS_OPENVINO,
    NEEDS_OPENVINO,
    Results,
    frame_of,
    load,
    options_of,
    results_of,
)
from tests.runtime.test_calibrated import calibration_of

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(not HAS_OPENVINO, reason=NEEDS_OPENVINO)
SIZE = (48, 64)


@pytest.fixture
def library() -> ctypes.CDLL:
    return load()


def paths_of(folders: list[Path]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(folders))(*(str(one).encode() for one in folders))


@pytest.fixture
def group(library: ctypes.CDLL, engines_of_two_sizes: list[Path]) -> Iterator[ctypes.c_void_p]:
    handle, options = ctypes.c_void_p(), options_of(library, SIZE)
    paths, deadline = paths_of(engines_of_two_sizes), ctypes.c_double(5000)
    zero = ctypes.c_int64(0)
    status = library.mvde_group_open(paths, 2, ctypes.byref(options), deadline, zero, zero, ctypes.byref(handle))
    assert status == 0, library.mvde_last_error()
    yield handle
    library.mvde_group_close(handle)


def inferred(library: ctypes.CDLL, group: ctypes.c_void_p, image: np.ndarray, age_ms: float) -> tuple[Results, int]:
    """Results of a frame that is ``age_ms`` old, and the engine that was used."""
    frame, found, used = frame_of(library, image), results_of(library, SIZE, num_patches=6), ctypes.c_int32(-1)
    age = ctypes.c_double(age_ms)
    status = library.mvde_group_infer(group, ctypes.byref(frame), age, ctypes.byref(found.outputs), ctypes.byref(used))
    assert status == 0, library.mvde_last_error()
    return found, used.value


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
    found, used = inferred(library, group, image, age_ms)
    assert used == index
    with load_on_time(engines_of_two_sizes, 5000) as runtime:
        assert isinstance(runtime, OnTimeRuntime)
        expected = runtime.infer(image, age_ms=age_ms)
    assert expected.placement.target_size == ((32, 48), (64, 96))[index]
    np.testing.assert_array_equal(found.depth, expected.depth)
    np.testing.assert_array_equal(found.stats, expected.stats)


def test_both_refuse_a_grid_with_the_same_words(library: ctypes.CDLL, engines_of_two_sizes: list[Path]) -> None:
    handle, options = ctypes.c_void_p(), options_of(library, SIZE)
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
    settings, handle = CStabilization(), ctypes.c_void_p()
    library.mvde_stabilization_defaults(ctypes.byref(settings))
    options = options_of(library, SIZE, calibration_path=str(tmp_path).encode(), stabilization=ctypes.pointer(settings))
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
            found, _ = inferred(library, handle, image, age_ms)
            expected = runtime.infer_next(image, steady, age_ms=age_ms)
            assert expected.num_steady == number + 1
            np.testing.assert_array_equal(found.depth, expected.depth)
            np.testing.assert_array_equal(found.stats, expected.stats)
    library.mvde_group_close(handle)
