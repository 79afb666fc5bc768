"""A group of libmvde gives what Python's runtime with a deadline gives, with OpenVINO's engines."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.errors import UsageError
from mvde.runtime.on_time import OnTimeRuntime, load_on_time
from tests.cpp.ctypes_session import (
    HAS_OPENVINO,
    NEEDS_OPENVINO,
    frame_of,
    load,
    options_of,
    results_of,
)

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
    frame, found, used = frame_of(library, image), results_of(library, SIZE, num_patches=6), ctypes.c_int32(-1)
    age = ctypes.c_double(age_ms)
    status = library.mvde_group_infer(group, ctypes.byref(frame), age, ctypes.byref(found.outputs), ctypes.byref(used))
    assert status == 0, library.mvde_last_error()
    assert used.value == index
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
