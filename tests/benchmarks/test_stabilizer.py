"""The benchmark of steady depth: its frames move as it says, and it refuses to time a stabiliser that starts over."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvde.runtime.depth import DepthRuntime
from mvde.runtime.stabilize import Stabilization

SIZE = (96, 128)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/stabilizer.py"))


def test_frames_move_by_three_pixels_to_and_fro(script: dict[str, Any]) -> None:
    frames = script["panned"](44, SIZE)
    assert {frame.shape for frame in frames} == {(*SIZE, 3)}
    for at in (0, 1, 19, 40, 42):  # to the right, up to frame 20
        np.testing.assert_array_equal(frames[at][:, 3:], frames[at + 1][:, :-3])
    for at in (20, 30, 39):
        np.testing.assert_array_equal(frames[at][:, :-3], frames[at + 1][:, 3:])
    assert (frames[0] != frames[1]).any()


def test_a_stream_is_timed_with_and_without(script: dict[str, Any], engine_folder: Path) -> None:
    with DepthRuntime.load(engine_folder) as runtime:
        found = script["measure"](runtime, script["panned"](6, SIZE), 2)
    assert set(found) == {
        f"{clock}, {what}" for clock in ("wall", "CPU") for what in ("without, ms", "stabilised, ms", "ratio")
    }
    assert all(value > 0 for value in found.values())


def test_a_stabiliser_that_starts_over_is_not_timed(script: dict[str, Any], engine_folder: Path) -> None:
    frames = script["panned"](4, SIZE)
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    with DepthRuntime.load(engine_folder) as runtime, pytest.raises(SystemExit, match="began anew after 4 frames"):
        script["times"](runtime, [*frames, noise, noise], Stabilization())
