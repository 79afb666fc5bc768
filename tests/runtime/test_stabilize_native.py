"""libmvde's stabilizer has the bits and the words of the specification in NumPy."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

from mvde import native
from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.native import abi
from mvde.native.steady import Stabilizer as NativeStabilizer
from mvde.runtime.exact_math import exact_exp, exact_log
from mvde.runtime.stabilize import Stabilization, Stabilizer

pytestmark = pytest.mark.skipif(not native.is_available(), reason="libmvde is not installed")

KINDS = [DepthKind.METRIC, DepthKind.INVERSE_CANONICAL, DepthKind.INVERSE_RELATIVE]


class Step(NamedTuple):
    """A frame of a sequence, and how many frames its depth goes back."""

    picture: np.ndarray
    depth: np.ndarray
    view: str = "camera"
    time_s: float | None = None
    expected: int | None = None


def picture_of(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A random picture (H, W, 3) uint8 of blocks of eight pixels, and noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    blocks = rng.integers(20, 235, (height // 8 + 1, width // 8 + 1, 3))
    return (
        blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width] + rng.integers(0, 9, (height, width, 3))
    ).astype(np.uint8)


def spoilt(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The map with a sky, a hole of a mask and single pixels without a value."""
    depth[: len(depth) // 6, ::2] = np.inf
    depth[len(depth) // 2 : len(depth) // 2 + 9, 3:20] = np.nan
    odd = rng.random(depth.shape) < 0.01
    depth[odd] = rng.choice(np.array([0, -1, np.nan, np.inf, -np.inf, 1e-42, 3e38], np.float32), odd.sum())
    return depth


def sequence(kind: DepthKind) -> Iterator[Step]:
    """A camera that moves, with flicker, holes, a cut, another resolution, another camera and a gap."""
    rng = np.random.default_rng(7)
    scene = picture_of(1, (150, 190))
    y, x = np.mgrid[0:96, 0:120].astype(np.float32)
    plane = (1 + x / 60 + y / 90).astype(np.float32)
    for number in range(12):
        shift = min(number, 7) * 3  # at rest from the eighth frame on
        image = (scene[shift : shift + 96, shift : shift + 120] * (0.8 + 0.02 * number)).astype(np.uint8)
        depth = (plane + np.float32(0.01) * shift) * np.float32(np.exp(rng.normal(0, 0.05)))
        if kind is DepthKind.INVERSE_RELATIVE:
            depth = depth + np.float32(rng.normal(0, 0.2))
        depth[30:50, 10 + 4 * number : 30 + 4 * number] *= np.float32(0.6)
        yield Step(image, spoilt(depth.astype(np.float32), rng), time_s=number * 0.1, expected=number + 1)
    smaller = np.ascontiguousarray(plane[::2, ::2] * np.float32(1.1))
    yield Step(image, smaller, time_s=1.2, expected=13)  # another resolution goes on
    yield Step(image[:95], spoilt(plane.copy(), rng), time_s=1.3, expected=14)
    yield Step(picture_of(3, (96, 120)), plane, time_s=1.4, expected=1)  # a cut
    yield Step(picture_of(3, (96, 120)), plane * np.float32(1.04), time_s=1.5, expected=2)
    yield Step(picture_of(3, (96, 120)), plane * np.float32(1.02), "another", 1.6, 1)
    yield Step(picture_of(3, (96, 120)), np.full((96, 120), np.nan, np.float32), "another", None, 2)
    yield Step(picture_of(3, (96, 120)), plane * np.float32(1.01), "another", 1.8, 3)
    yield Step(picture_of(3, (96, 120)), plane, "another", 9.0, 1)  # a gap
    yield Step(picture_of(4, (30, 40)), plane[:1], "another", 9.1, 1)  # fewer pixels than a thumbnail
    yield Step(picture_of(4, (30, 40)), plane[:7, :9].copy(), "another", 9.2, 1)
    yield Step(picture_of(4, (30, 40)), plane[1:8, :9].copy(), "another", 9.3, 2)
    yield Step(picture_of(4, (30, 40)), plane[:2, :2].copy(), "another", 9.4, 3)  # each pixel is at two borders
    yield Step(picture_of(4, (30, 40)), plane[2:4, :2].copy(), "another", 9.5, 4)


def assert_equal_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Whether arrays agree, also in the bits of NaN."""
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_has_the_bits_of_the_specification_on_every_instruction_set(kind: DepthKind) -> None:
    plain, settings = Stabilizer(kind), dataclasses.astuple(Stabilization())
    fast = {name: NativeStabilizer(kind, settings) for name in native.available_kernels()}
    assert "scalar" in fast
    try:
        for number, (image, depth, view, time_s, expected) in enumerate(sequence(kind)):
            steady = plain.update(image, depth, view=view, time_s=time_s)
            for name, one in fast.items():
                native.set_kernel(name)
                assert_equal_bits(one.update(image, depth, view=view, time_s=time_s), steady)
                assert (one.num_frames, plain.num_frames) == (expected, expected), (name, number)
    finally:
        native.set_kernel(None)


def test_other_settings_have_their_effect_and_the_bits_too() -> None:
    chosen = Stabilization(scale_gain=0.9, gain=0.6, open=0.02, full=0.05, cut_correlation=-1.0, max_gap_s=100.0)
    plain = Stabilizer(DepthKind.METRIC, chosen)
    fast = NativeStabilizer(DepthKind.METRIC, dataclasses.astuple(chosen))
    for step in sequence(DepthKind.METRIC):
        found = fast.update(step.picture, step.depth, time_s=step.time_s)
        assert_equal_bits(found, plain.update(step.picture, step.depth, time_s=step.time_s))
        assert fast.num_frames == plain.num_frames


def test_logarithm_and_exponential_have_the_bits_of_the_specification_everywhere() -> None:
    """Through the first two frames: the second one's map is the mean of logarithms of both, of a gain of a half."""
    bits = np.random.default_rng(2).integers(1, 0x7F800000, 40000, dtype=np.uint32)
    bits[:5] = [1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x3F800000]
    first = bits.view(np.float32).reshape(200, 200)
    image = picture_of(5, (64, 64))
    fast = NativeStabilizer(DepthKind.METRIC, dataclasses.astuple(Stabilization(open=0.5, full=1.0)))
    fast.update(image, first)
    found = fast.update(image, first)  # nothing has changed, so the mean is the logarithm itself
    assert_equal_bits(found, exact_exp(exact_log(first)))


def refusal(call: Callable[[], object]) -> str | None:
    """Message of the UsageError that a call raises."""
    try:
        call()
    except UsageError as error:
        return str(error).removeprefix("libmvde: ")
    return None


@pytest.mark.parametrize("time_s", [2.0, 1.5, math.inf])
def test_times_that_do_not_increase_are_refused_with_the_same_words(time_s: float) -> None:
    image, depth = picture_of(1, (48, 48)), np.ones((24, 24), np.float32)
    said = []
    for stabilizer in (Stabilizer(DepthKind.METRIC), NativeStabilizer("metric", dataclasses.astuple(Stabilization()))):
        stabilizer.update(image, depth, time_s=2.0)
        text = refusal(lambda one=stabilizer: one.update(image, depth, time_s=time_s))
        said.append(text)
        assert stabilizer.num_frames == 1
        stabilizer.reset()
        stabilizer.update(image, depth, time_s=0.1)
        assert stabilizer.num_frames == 1
    assert said[0] is not None
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gain": 0.0}, "gain is a share of each change, above 0 and up to 1, but got 0"),
        ({"scale_gain": 1.5}, "scale_gain is a share of each change, above 0 and up to 1, but got 1.5"),
        ({"open": 0.4}, "a gain opens between two differences, the smaller one first, but got 0.15 to 0.4 for the"),
        ({"max_gap_s": 0.0}, "expected more than 0 seconds"),
        ({"full": math.nan}, "full of the stabilization is nan; expected a number"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_same_words(change: dict[str, float], said: str) -> None:
    given = tuple(change.get(name, value) for name, value in dataclasses.asdict(Stabilization()).items())
    assert said in (refusal(lambda: NativeStabilizer("metric", given)) or "")
    assert said.removesuffix(" 0") in (refusal(lambda: Stabilization(**change)) or "")


def test_frames_that_cannot_be_read_are_refused_and_change_nothing() -> None:
    image, depth = picture_of(1, (48, 60)), np.ones((24, 30), np.float32)
    stabilizer = NativeStabilizer("metric", dataclasses.astuple(Stabilization()))
    expected = stabilizer.update(image, depth)
    library, out = native._require(), np.empty_like(depth)

    def call(**changed: int) -> tuple[int, str]:
        sizes = {"picture_height": 48, "picture_width": 60, "height": 24, "width": 30}
        given = {"rgb": image.ctypes.data, "map": depth.ctypes.data, **sizes, **changed}
        frame = abi.CSteadyFrame(ctypes.sizeof(abi.CSteadyFrame), time_s=math.nan, **given)
        frame.struct_size += changed.get("reserved", 0)
        status = library.mvde_stabilize(stabilizer.handle, frame, out.ctypes.data, 0, None)
        return status, library.mvde_last_error().decode()

    for changed, status, said in (
        ({"rgb": 0}, -1, "rgb is NULL"),
        ({"map": 0}, -1, "map is NULL"),
        ({"height": 0}, -2, "map is 0x30 (HxW): expected 1 to 65536 each"),
        ({"picture_width": 1 << 17}, -2, "rgb is 48x131072 (HxW)"),
        ({"row_stride": 8}, -2, "map: the row stride is 8 bytes, but a row has 120"),
        ({"map": depth.ctypes.data + 1}, -3, "must be multiples of 4 bytes"),
        ({"map": out.ctypes.data + 4}, -4, "steady overlaps the picture, or a part of the map"),
        ({"reserved": 1}, -1, "start from mvde_steady_frame_defaults()"),
    ):
        found = call(**changed)
        assert found[0] == status
        assert said in found[1]
    assert call()[0] == 0
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_a_map_may_be_made_steady_in_its_own_memory() -> None:
    steps = list(sequence(DepthKind.METRIC))[:4]
    plain = Stabilizer(DepthKind.METRIC)
    stabilizer = NativeStabilizer("metric", dataclasses.astuple(Stabilization()))
    for picture, depth, *_ in steps:
        wide = np.zeros((depth.shape[0], depth.shape[1] + 7), np.float32)  # rows apart, as in a letterbox
        wide[:, 3:-4] = depth
        inner, image = wide[:, 3:-4], np.ascontiguousarray(picture)
        frame = abi.CSteadyFrame(
            ctypes.sizeof(abi.CSteadyFrame), 0, image.ctypes.data, *image.shape[:2], 0, inner.ctypes.data, *inner.shape,
            inner.strides[0], 0, math.nan,
        )  # fmt: skip
        library = native._require()
        assert library.mvde_stabilize(stabilizer.handle, frame, inner.ctypes.data, inner.strides[0], None) == 0
        assert_equal_bits(np.ascontiguousarray(inner), plain.update(picture, depth))
        assert not wide[:, :3].any()
        assert not wide[:, -4:].any()
