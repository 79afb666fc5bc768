"""libmvde's scale from the floor has the bits and the words of the specification in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from mvde import native
from mvde.camera import Camera
from mvde.distortion import Distortion, DistortionModel
from mvde.errors import UsageError
from mvde.runtime.floor import FloorScale, FloorStatus, floor_falls, floor_scale
from mvde.runtime.mounting import Mounting
from mvde.runtime.placement import Box
from mvde.runtime.points import native_rays
from tests.runtime.floor_rooms import room_depth

pytestmark = pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")

SIZE = (40, 56)
LENSES = (None, Distortion(DistortionModel.PLUMB_BOB, (-0.3, 0.1, 0.001, -0.002, 0.0)))


def by_libmvde(depth: np.ndarray, camera: Camera, mounting: Mounting, box: Box) -> FloorScale:
    from mvde.native.floor import floor_scale as native_scale

    found = native_scale(native_rays(camera), dataclasses.astuple(box), dataclasses.astuple(mounting), depth)
    return FloorScale(FloorStatus(found.status), found.scale, found.share, found.residual)


@settings(max_examples=25, deadline=None)
@given(
    strategies.builds(
        Mounting,
        height_m=strategies.floats(0.05, 3),
        pitch_deg=strategies.floats(-80, 80),
        roll_deg=strategies.floats(-180, 180),
    ),
    strategies.floats(20, 120),
    strategies.sampled_from(LENSES),
    strategies.floats(0.4, 2.4),
    strategies.floats(0, 0.3),
    strategies.sampled_from([0.0, 0.1, 0.6, 1.0]),
    strategies.integers(0, 2**32 - 1),
)
def test_scales_are_equal_bit_by_bit(
    mounting: Mounting,
    focal: float,
    lens: Distortion | None,
    wrong: float,
    noise: float,
    holes: float,
    seed: int,
) -> None:
    camera, rng = Camera(focal, focal * 1.1, 27.0, 20.5, SIZE, lens), np.random.default_rng(seed)
    depth = room_depth(dataclasses.replace(camera, distortion=None), mounting) * wrong
    depth = (depth * np.exp(rng.normal(0, noise, SIZE))).astype(np.float32)
    odd = rng.random(SIZE) < holes
    depth[odd] = rng.choice(np.array([np.nan, 0, -1, np.inf, -np.inf, 1e-42, 3e38], np.float32), odd.sum())
    top, left = (int(rng.integers(0, side - 1)) for side in SIZE)
    for box in (Box(0, 0, *SIZE), Box(top, left, *SIZE)):
        expected = floor_scale(depth, floor_falls(camera, mounting), mounting.height_m, box)
        found = by_libmvde(depth, camera, mounting, box)
        assert (found.status, found.scale.hex(), found.share.hex(), found.residual.hex()) == (
            expected.status,
            expected.scale.hex(),
            expected.share.hex(),
            expected.residual.hex(),
        )


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (0.6, 85.0, 0.0), (0.6, 0.0, np.nan)])
def test_both_refuse_the_same_mountings_with_the_same_words(values: tuple[float, float, float]) -> None:
    from mvde.native.floor import floor_scale as native_scale

    camera, depth = Camera(40.0, 40.0, 27.0, 20.0, SIZE), np.ones(SIZE, np.float32)
    with pytest.raises(UsageError) as of_python:
        Mounting(*values)
    with pytest.raises(UsageError) as of_libmvde:
        native_scale(native_rays(camera), (0, 0, *SIZE), values, depth)
    assert str(of_libmvde.value).removeprefix("libmvde: ") == str(of_python.value)


def test_a_map_of_another_size_or_a_box_outside_is_refused() -> None:
    from mvde.native.floor import floor_scale as native_scale

    rays = native_rays(Camera(40.0, 40.0, 27.0, 20.0, SIZE))
    with pytest.raises(UsageError, match=r"depth is float32 \(3, 4\): expected float32 \(40, 56\)"):
        native_scale(rays, (0, 0, *SIZE), (0.6, 0.0, 0.0), np.ones((3, 4), np.float32))
    with pytest.raises(UsageError, match="the box is not within the map of 40x56, or empty"):
        native_scale(rays, (0, 0, 41, 56), (0.6, 0.0, 0.0), np.ones(SIZE, np.float32))
