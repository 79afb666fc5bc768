"""Streams with a stabiliser: its depth, statistics of it, batches, and bad input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.engines.store import find, load_engine
from mvde.errors import UsageError
from mvde.runtime import steady_stream
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.stabilize import Stabilization, Stabilizer
from mvde.runtime.steady_stream import SteadyMaps
from mvde.stats import depth_to_patch_stats


class _Flickering:
    """The engine ``inner`` with a map whose scale changes from call to call."""

    def __init__(self, inner: object) -> None:
        self._inner, self.calls = inner, 0
        self.plane = np.broadcast_to(np.linspace(1, 2, 48, dtype=np.float32), (32, 48))

    def __getattr__(self, name: str) -> object:
        if name == "for_two_calls":  # two calls at a time would have no order
            raise AttributeError(name)
        return getattr(self._inner, name)

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        scale = np.float32(1.08 if self.calls % 2 else 1.0)
        return np.broadcast_to(self.plane * scale, images.shape[:3]).copy()


@pytest.fixture
def runtime(engine_folder: Path) -> Iterator[DepthRuntime]:
    """A runtime at 32 x 48 whose depth flickers by 8 %."""
    engine, manifest = load_engine(find(engine_folder))
    with DepthRuntime(_Flickering(engine), dataclasses.replace(manifest)) as made:  # type: ignore[arg-type]
        yield made


def frames(random_images: object, count: int, size: tuple[int, int] = (32, 48)) -> list[np.ndarray]:
    """The same picture, ``count`` times."""
    return [random_images(*size, 3, seed=1)] * count  # type: ignore[operator]


def test_depth_is_the_stabilizers_and_statistics_are_of_that_depth(
    runtime: DepthRuntime, random_images: object
) -> None:
    images = frames(random_images, 6)
    alone = Stabilizer(runtime.manifest.depth_kind)
    expected = []
    for number, image in enumerate(images):
        scale = np.float32(1.0 if number % 2 else 1.08)
        expected.append(alone.update(image, np.ascontiguousarray(runtime.engine.plane * scale)))  # type: ignore[attr-defined]
    results = list(runtime.stream(images, stabilize=Stabilization()))
    assert [one.num_steady for one in results] == [1, 2, 3, 4, 5, 6]
    for result, depth in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.depth, depth * np.float32(result.camera_factor), rtol=1e-6)
        own = depth_to_patch_stats(result.depth[None], 16, result.stat_names)[0]
        np.testing.assert_allclose(result.stats, own, rtol=1e-4, atol=1e-6)
    plain = list(runtime.stream(images))
    assert plain[0].num_steady is None
    flicker = [np.abs(np.diff([np.log(one.depth[0, 0]) for one in many][3:])).mean() for many in (results, plain)]
    assert flicker[0] < 0.4 * flicker[1]


def test_another_camera_or_size_in_the_stream_begins_anew(runtime: DepthRuntime, random_images: object) -> None:
    images = [*frames(random_images, 2), *frames(random_images, 2, (40, 64))]
    assert [one.num_steady for one in runtime.stream(images, stabilize=Stabilization())] == [1, 2, 1, 2]

    cameras = iter([60.0, 60.0, 30.0])

    def camera(size: tuple[int, int]) -> Camera:
        focal = next(cameras)
        return Camera(focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2, size)

    results = list(runtime.stream(frames(random_images, 3), camera=camera, stabilize=Stabilization()))
    assert [one.num_steady for one in results] == [1, 2, 1 if results[0].camera_factor != 1 else 3]


def test_bars_of_a_letterbox_are_no_part_of_the_picture(runtime: DepthRuntime, random_images: object) -> None:
    images = frames(random_images, 3, (32, 16))
    results = list(runtime.stream(images, fit="letterbox", stabilize=Stabilization()))
    assert [one.num_steady for one in results] == [1, 2, 3]
    assert all(np.isfinite(one.depth).all() for one in results)


def test_a_stream_of_one_frame_and_of_none(runtime: DepthRuntime, random_images: object) -> None:
    (only,) = runtime.stream(frames(random_images, 1), stabilize=Stabilization())
    assert only.num_steady == 1
    assert list(runtime.stream([], stabilize=Stabilization())) == []


def test_times_must_increase_and_last(runtime: DepthRuntime, random_images: object) -> None:
    images = frames(random_images, 3)
    with pytest.raises(UsageError, match=r"the frame at 1.000000 s comes after the one at 1.000000 s"):
        list(runtime.stream(images, stabilize=Stabilization(), times_s=[0.0, 1.0, 1.0]))
    with pytest.raises(UsageError, match="times_s ended after 2 frames, and there are more; give a time for each"):
        list(runtime.stream(images, stabilize=Stabilization(), times_s=[0.0, 0.1]))
    with pytest.raises(UsageError, match="sources ended after 2 frames, and there are more; give a camera for each"):
        list(runtime.stream(images, stabilize=Stabilization(), sources="ab"))
    results = list(runtime.stream(images, stabilize=Stabilization(), times_s=[0.0, 0.1, 9.0]))
    assert [one.num_steady for one in results] == [1, 2, 1]


def test_cameras_of_one_stream_are_each_steady_in_themselves(runtime: DepthRuntime, random_images: object) -> None:
    images = [random_images(32, 48, 3, seed=seed) for seed in (1, 2)] * 3  # type: ignore[operator]
    times = [0.1 * (number // 2) for number in range(6)]  # equal stamps of two cameras
    results = list(runtime.stream(images, stabilize=Stabilization(), times_s=times, sources="ababab"))
    assert [one.num_steady for one in results] == [1, 1, 2, 2, 3, 3]
    mixed = list(runtime.stream(images, stabilize=Stabilization()))
    assert [one.num_steady for one in mixed] == [1] * 6  # each picture is a cut of the one before


def test_frames_one_at_a_time_are_those_of_a_stream(runtime: DepthRuntime, random_images: object) -> None:
    images, steady = frames(random_images, 4), SteadyMaps(runtime.manifest.depth_kind, Stabilization())
    single = [runtime.infer_next(image, steady, time_s=0.1 * number) for number, image in enumerate(images)]
    streamed = list(runtime.stream(images, stabilize=Stabilization()))
    assert [one.num_steady for one in single] == [1, 2, 3, 4]
    for one, other in zip(single, streamed, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_array_equal(one.stats, other.stats)
    assert runtime.infer_next(images[0], steady, time_s=9.0).num_steady == 1  # a gap
    with pytest.raises(UsageError, match=r"the frame at 9.000000 s comes after the one at 9.000000 s"):
        runtime.infer_next(images[0], steady, time_s=9.0)


def test_without_libmvde_a_stream_has_the_same_bits(
    runtime: DepthRuntime, random_images: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = frames(random_images, 3)
    fast = list(runtime.stream(images, stabilize=Stabilization()))
    monkeypatch.setattr(steady_stream, "fastest_stabilizer", Stabilizer)
    runtime.engine.calls = 0  # type: ignore[attr-defined]
    for one, other in zip(fast, runtime.stream(images, stabilize=Stabilization()), strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_array_equal(one.stats, other.stats)
