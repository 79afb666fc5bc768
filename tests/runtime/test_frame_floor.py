"""The floor's scale in a runtime: the pictures of a test show rooms, since the engine's depth is their brightness."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.contract import DepthKind
from mvde.engines.store import find, load_engine
from mvde.errors import UsageError
from mvde.runtime.depth import DepthRuntime
from mvde.runtime.floor import FloorStatus
from mvde.runtime.frame_floor import STEADY_GAIN
from mvde.runtime.mounting import Mounting
from mvde.runtime.stabilize import Stabilization
from mvde.runtime.steady_stream import SteadyMaps
from tests.runtime.floor_rooms import picture, room_depth

pytest.importorskip("openvino")

CAMERA = Camera.from_fov(60.0, None, (32, 48))
MOUNTING = Mounting(0.6, 15.0)
WRONG = 0.8
"""What the engine's depth is of the room's."""


ROOM = room_depth(CAMERA, MOUNTING, wall_m=4.0) * WRONG
SEEN = picture(ROOM)
UNSEEN = np.full((32, 48, 3), 40, np.uint8)


@pytest.fixture(scope="module")
def plain(engine_folder: Path) -> Iterator[DepthRuntime]:
    with DepthRuntime.load(engine_folder, camera=CAMERA) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def floored(engine_folder: Path) -> Iterator[DepthRuntime]:
    with DepthRuntime.load(engine_folder, camera=CAMERA, floor=MOUNTING) as runtime:
        yield runtime


def test_depth_and_statistics_get_the_floors_scale(plain: DepthRuntime, floored: DepthRuntime) -> None:
    before, after = plain.infer(SEEN), floored.infer(SEEN)
    (floor,) = after.floors
    assert floor.status is FloorStatus.USED
    assert floor.scale == pytest.approx(1 / WRONG, rel=0.01)
    assert after.depth == pytest.approx(before.depth * floor.scale, rel=1e-6)
    assert after.depth == pytest.approx(np.maximum(ROOM, 0.5) / WRONG, rel=0.02)
    factors = {"mean": 1, "var": 2, "grad": 1, "min": 1, "max": 1, "valid": 0}
    for column, name in enumerate(after.stat_names):
        expected = before.stats[:, column] * floor.scale ** factors[name]
        assert after.stats[:, column] == pytest.approx(expected, rel=1e-5)
    assert (floored.patch_stats(SEEN) == after.stats).all()
    assert before.floors == ()


def test_depth_without_a_floor_stays_as_it_is(plain: DepthRuntime, floored: DepthRuntime) -> None:
    before, after = plain.infer(UNSEEN), floored.infer(UNSEEN)
    assert [one.status for one in after.floors] == [FloorStatus.UNSEEN]
    assert after.depth.tobytes() == before.depth.tobytes()
    assert after.stats.tobytes() == before.stats.tobytes()


def test_a_batch_has_one_for_each_image(floored: DepthRuntime) -> None:
    batch = floored.infer(np.stack([SEEN, UNSEEN]))
    assert [one.status for one in batch.floors] == [FloorStatus.USED, FloorStatus.UNSEEN]
    assert batch.depth[0].tobytes() == floored.infer(SEEN).depth.tobytes()


def test_a_larger_frame_has_the_same_scale(floored: DepthRuntime) -> None:
    large = SEEN.repeat(4, axis=0).repeat(4, axis=1)
    result = floored.infer(large, camera=CAMERA.scaled((128, 192)))
    assert result.floors[0].scale == pytest.approx(floored.infer(SEEN).floors[0].scale, rel=0.01)


def test_the_mounting_of_a_moment_is_taken(plain: DepthRuntime, floored: DepthRuntime) -> None:
    turned = Mounting(0.6, 25.0)
    seen = picture(room_depth(CAMERA, turned) * WRONG)
    assert plain.infer(seen, mounting=turned).floors[0].scale == pytest.approx(1 / WRONG, rel=0.01)
    streamed = list(plain.stream([SEEN, seen, seen], mountings=[MOUNTING, turned, None]))
    assert [one.floors[0].status.value for one in streamed] == ["used", "used", "unknown"]
    assert [one.floors[0].scale for one in streamed] == pytest.approx([1 / WRONG, 1 / WRONG, 1], rel=0.01)
    assert streamed[0].depth.tobytes() == floored.infer(SEEN).depth.tobytes()
    with pytest.raises(UsageError, match="mountings ended after 1 frames, and there are more; give one for each"):
        list(plain.stream([SEEN, SEEN], mountings=[MOUNTING]))


def test_a_steady_stream_holds_the_scale(floored: DepthRuntime) -> None:
    """A frame whose mounting is not known is no cut: it has the scale of those before it."""
    other = Mounting(0.66, 15.0)  # the same picture of a room a tenth larger
    mountings = [MOUNTING, other, None, MOUNTING]
    results = list(floored.stream([SEEN] * 4, stabilize=Stabilization(), mountings=mountings))
    own = floored.infer(SEEN).floors[0].scale
    assert [one.floors[0].status.value for one in results] == ["used", "used", "held", "used"]
    expected = [own, 1.05 * own, 1.05 * own, 1.05 * own + (0.0 - 0.05) * own / 3]
    assert [one.floors[0].scale for one in results] == pytest.approx(expected, rel=0.003)
    assert results[2].depth == pytest.approx(results[1].depth, rel=1e-4)
    assert STEADY_GAIN < 1 / 3  # the mean over the frames there are comes first


def test_a_cut_drops_the_scale(floored: DepthRuntime) -> None:
    rng = np.random.default_rng(0)
    other = rng.integers(0, 256, (32, 48, 3), np.uint8)
    results = list(floored.stream([SEEN, SEEN, other], stabilize=Stabilization(), mountings=[MOUNTING, MOUNTING, None]))
    assert results[2].num_steady == 1
    assert [one.floors[0].status.value for one in results] == ["used", "used", "unknown"]


def test_cameras_of_one_stream_have_scales_of_their_own(floored: DepthRuntime) -> None:
    results = list(
        floored.stream(
            [SEEN, SEEN, SEEN],
            stabilize=Stabilization(),
            sources=["left", "right", "left"],
            mountings=[MOUNTING, None, None],
        )
    )
    assert [one.floors[0].status.value for one in results] == ["used", "unknown", "held"]


def test_live_frames_share_the_scale_too(floored: DepthRuntime) -> None:
    steady = SteadyMaps(floored.manifest.depth_kind, Stabilization())
    first, second = (floored.infer_next(SEEN, steady, time_s=at * 0.1) for at in range(2))
    assert [one.floors[0].status.value for one in (first, second)] == ["used", "used"]
    assert second.floors[0].scale == pytest.approx(first.floors[0].scale, rel=1e-3)
    assert second.num_steady == 2


def test_anchors_take_the_place_of_the_floor(floored: DepthRuntime) -> None:
    result = floored.infer(SEEN, anchors=[(24.0, 28.0, 1.0)])
    assert (result.floors, result.calibrated) == ((), "anchors")


def test_the_camera_and_metres_are_needed(engine_folder: Path) -> None:
    words = "scale from the floor needs the camera of the frame, and metric assumes none: give --camera"
    with DepthRuntime.load(engine_folder, floor=MOUNTING) as runtime, pytest.raises(UsageError, match=words):
        runtime.infer(SEEN)
    engine, manifest = load_engine(find(engine_folder))
    relative = dataclasses.replace(manifest, depth_kind=DepthKind.SCALE_INVARIANT, unit="1")
    with (
        DepthRuntime(engine, relative, camera=CAMERA, floor=MOUNTING) as runtime,
        pytest.raises(UsageError, match="scale from the floor needs a map in metres, but this one is scale_invariant"),
    ):
        runtime.infer(SEEN)


def test_a_file_gives_the_mounting(engine_folder: Path, tmp_path: Path, floored: DepthRuntime) -> None:
    (tmp_path / "mount.yaml").write_text("height_m: 0.6\npitch_deg: 15\n")
    with DepthRuntime.load(engine_folder, camera=CAMERA, floor=tmp_path / "mount.yaml") as runtime:
        assert runtime.infer(SEEN).depth.tobytes() == floored.infer(SEEN).depth.tobytes()
