"""The floor's scale of depth maps whose scale is known."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mvde.camera import Camera
from mvde.errors import UsageError
from mvde.runtime.floor import FloorScale, FloorStatus, floor_falls, floor_scale, floor_text
from mvde.runtime.frame_floor import STEADY_GAIN, SteadyScale
from mvde.runtime.mounting import Mounting
from mvde.runtime.placement import Box
from tests.runtime.floor_rooms import room_depth

CAMERA = Camera.from_fov(60.0, None, (96, 128))
WHOLE = Box(0, 0, 96, 128)
LOOKS_DOWN = Mounting(0.6, 15.0)


def scale_of(
    depth: np.ndarray, mounting: Mounting = LOOKS_DOWN, camera: Camera = CAMERA, box: Box = WHOLE
) -> FloorScale:
    return floor_scale(depth.astype(np.float32), floor_falls(camera, mounting), mounting.height_m, box)


@pytest.mark.parametrize("wrong", [0.6, 0.8, 1.0, 1.25, 1.6])
@pytest.mark.parametrize(
    "mounting", [LOOKS_DOWN, Mounting(0.25, 5.0), Mounting(1.4, 40.0, -8.0), Mounting(0.5, -2, 20)]
)
def test_the_floor_undoes_a_wrong_scale(mounting: Mounting, wrong: float) -> None:
    found = scale_of(room_depth(CAMERA, mounting) * wrong, mounting)
    assert found.status is FloorStatus.USED
    assert found.scale * wrong == pytest.approx(1, rel=0.001)  # a cell's width
    assert found.residual < 0.03


def test_noise_and_furniture_do_not_move_it() -> None:
    depth = room_depth(CAMERA, LOOKS_DOWN, wall_m=1.8)
    rng = np.random.default_rng(0)
    depth[50:90, 20:50] = 0.5  # nearer than the floor
    noisy = depth * np.exp(rng.normal(0, 0.02, depth.shape)) * 0.85
    assert scale_of(noisy).scale * 0.85 == pytest.approx(1, rel=0.01)


def test_a_camera_that_sees_no_floor_keeps_its_depth() -> None:
    above = room_depth(CAMERA, Mounting(1.0, -40.0))
    assert scale_of(above, Mounting(1.0, -40.0)) == FloorScale(FloorStatus.UNSEEN)
    wall = np.full(CAMERA.size, 0.5, np.float32)  # a wall close by hides it
    found = scale_of(wall, Mounting(1.2, 0.0))
    assert (found.status, found.scale) == (FloorStatus.UNSEEN, 1.0)


def test_a_floor_that_is_rough_is_refused() -> None:
    rng = np.random.default_rng(0)
    rough = room_depth(CAMERA, LOOKS_DOWN, wall_m=30.0) * np.exp(rng.uniform(-0.22, 0.22, CAMERA.size))
    found = scale_of(rough)
    assert (found.status, found.scale) == (FloorStatus.UNEVEN, 1.0)
    assert found.residual > 0.06


@pytest.mark.parametrize("wrong", [0.9, 1.0, 1.25])
def test_a_table_with_the_floor_below_it_is_no_floor(wrong: float) -> None:
    """Nearly all that looks down is a table half as far below the camera as the floor, which the rest shows."""
    room, table = (room_depth(CAMERA, Mounting(height_m, 35.0)) for height_m in (1.2, 0.7))
    beyond = np.where(np.arange(96)[:, None] < 8, room, table)
    found = scale_of(beyond * wrong, Mounting(1.2, 35.0))
    assert (found.status, found.scale) == (FloorStatus.UNEVEN, 1.0)
    assert found.residual < 0.06
    alone = scale_of(table * wrong, Mounting(1.2, 35.0))  # one that fills the view is as good as a floor
    assert (alone.status, alone.scale * wrong) == (FloorStatus.USED, pytest.approx(1.2 / 0.7, rel=0.001))


def test_what_has_no_depth_and_what_is_outside_the_box_do_not_count() -> None:
    depth = room_depth(CAMERA, LOOKS_DOWN)
    expected = scale_of(depth[20:, 10:], camera=CAMERA.cropped(20, 10, (76, 118)), box=Box(0, 0, 76, 118))
    depth[:20], depth[:, :10] = 0.2, 0.2
    assert scale_of(depth, box=Box(20, 10, 96, 128)) == expected
    for nothing in (math.nan, 0.0, -1.0, math.inf, -math.inf):
        holes = room_depth(CAMERA, LOOKS_DOWN)
        holes[::2] = nothing
        assert scale_of(holes).scale == pytest.approx(1, rel=0.002)
        assert scale_of(np.full(CAMERA.size, nothing)).status is FloorStatus.UNSEEN


def test_a_pitch_that_is_wrong_moves_it_as_geometry_says() -> None:
    """The floor's far rays are longer than those of a camera that looks further down."""
    depth = room_depth(CAMERA, LOOKS_DOWN)
    less, more = (scale_of(depth, Mounting(0.6, 15.0 + error)).scale for error in (-2, 2))
    assert 1.02 < less < 1.2
    assert 0.85 < more < 0.98


class TestSteadyScale:
    """Frames that share a scale share the floor's."""

    SEEN, UNSEEN = FloorScale(FloorStatus.USED, 1.2, 0.5, 0.03), FloorScale(FloorStatus.UNSEEN, share=0.1)

    def test_it_is_averaged_and_held(self) -> None:
        steady = SteadyScale()
        scales = [
            steady.update(FloorScale(FloorStatus.USED, one), is_anew=at == 0).scale for at, one in enumerate((1.2, 1.0))
        ]
        assert scales == pytest.approx([1.2, 1.1])
        for _ in range(30):
            steady.update(FloorScale(FloorStatus.USED, 1.1), is_anew=False)
        assert steady.update(self.SEEN, is_anew=False).scale == pytest.approx(1.1 + STEADY_GAIN * 0.1)
        held = steady.update(self.UNSEEN, is_anew=False)
        assert (held.status, held.share) == (FloorStatus.HELD, 0.1)
        assert held.scale == pytest.approx(1.1 + STEADY_GAIN * 0.1)

    def test_it_begins_anew_after_a_cut(self) -> None:
        steady = SteadyScale()
        steady.update(self.SEEN, is_anew=True)
        assert steady.update(self.UNSEEN, is_anew=True) == self.UNSEEN
        assert steady.update(FloorScale(FloorStatus.USED, 0.9), is_anew=False).scale == 0.9


def test_the_text_counts_what_the_floor_gave() -> None:
    assert floor_text(Counter((*FloorStatus, FloorStatus.UNSEEN))) == (
        "scale from the floor in 1 of 6 frames, 1 held that of frames before, 2 showed none, 1 showed none that is "
        "flat, 1 had no known mounting"
    )
    assert floor_text({}) == ""


class TestMounting:
    """A mounting is checked, and read from the file of a scan."""

    def test_a_file_of_a_scan_holds_one(self, tmp_path: Path) -> None:
        path = tmp_path / "mount.yaml"
        path.write_text("height_m: 0.6\npitch_deg: 12\nroll_deg: -1\nrange_max_m: 8\n")
        assert Mounting.of(path) == Mounting.of(str(path)) == Mounting(0.6, 12.0, -1.0)
        path.write_text("pitch_deg: 12\n")
        with pytest.raises(UsageError, match=r"mount\.yaml: lacks height_m"):
            Mounting.of(path)

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ((0.0,), r"height_m of a mounting lies between 0\.01 and 100, but got 0"),
            ((0.6, 85.0), "pitch_deg of a mounting lies between -80 and 80, but got 85"),
            ((0.6, math.nan), "pitch_deg of a mounting lies between -80 and 80, but got nan"),
            (("0.6",), "height_m of a mounting must be a number, but got '0.6'"),
            ((0.6, 0.0, True), "roll_deg of a mounting must be a number, but got True"),
        ],
    )
    def test_bad_numbers_are_refused(self, values: tuple, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            Mounting(*values)

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"floor is 0\.6: expected a Mounting, or a file of one"):
            Mounting.of(0.6)  # type: ignore[arg-type]
