"""Clips of other frame rates, through a rolling shutter, and of bare rooms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from mvde.datasets.synth.clip_renderer import ClipRenderer, _bands
from mvde.datasets.synth.filming import Filming
from mvde.datasets.synth.paths import ClipKind
from mvde.datasets.synth.scene import Scene, build_scene

SIZE, TURN = (48, 64), list(ClipKind).index(ClipKind.TURN)
PLAIN = Filming(SIZE, 2)
GROUPS = """
    plaster carpet planks wood tiles brick pattern stone weave picture outside screen text keys photo
"""


@pytest.fixture(scope="module")
def renderer_of(opengl: None) -> Callable[[Filming], ClipRenderer]:
    """Return a renderer of clips that are filmed otherwise; it is one and the same."""
    renderer = ClipRenderer((3, 2), PLAIN)

    def filmed(filming: Filming) -> ClipRenderer:
        renderer._filming, renderer._middle = filming, filming.num_steps / 2
        return renderer

    return filmed


def test_a_frame_rate_says_how_far_the_path_goes_from_frame_to_frame() -> None:
    ten = Filming(SIZE, 4, fps=10)
    assert (ten.stride, ten.num_steps) == (3, 10)
    assert (PLAIN.stride, PLAIN.num_steps, PLAIN.readout) == (1, 2, 0)
    assert Filming(SIZE, 2, fps=20, rolling_shutter_ms=30).num_steps == 3
    assert Filming(SIZE, 2, rolling_shutter_ms=30).readout == pytest.approx(0.9)


@pytest.mark.parametrize("set_off", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("height", [3, 48, 191])
def test_bands_take_each_row_once_and_in_the_order_of_its_exposure(height: int, set_off: float) -> None:
    bands = _bands(height, 0.9, set_off)
    rows = [row for band, _ in bands for row in range(height)[band]]
    assert rows == list(range(height))
    for band, delay in bands:
        exact = [((row + 0.5) / height - 0.5) * 0.9 for row in range(height)[band]]
        assert np.mean(exact) == pytest.approx(delay)
        assert max(abs(one - delay) for one in exact) <= 0.9 / 16
    assert _bands(height, 0.0, set_off) == [(slice(0, height), 0.0)]


@pytest.mark.slow
def test_a_rolling_shutter_exposes_rows_one_after_the_other_and_keeps_the_truth(
    renderer_of: Callable[[Filming], ClipRenderer],
) -> None:
    rolling = dataclasses.replace(PLAIN, rolling_shutter_ms=33)
    still = [renderer_of(filming).clip(0) for filming in (PLAIN, rolling)]
    assert (still[0].rgb == still[1].rgb).all()  # a camera that stands
    plain, rolled = (renderer_of(filming).clip(TURN) for filming in (PLAIN, rolling))
    assert (plain.rgb != rolled.rgb).any()
    for name in ("depth", "poses", "intrinsics"):
        assert (getattr(plain, name) == getattr(rolled, name)).all()
    shot = renderer_of(rolling)._shots(np.random.default_rng((3, 2, 0x76, TURN, 0)), (3, 2, TURN), ClipKind.TURN)[0]
    light = renderer_of(rolling)._exposed(shot, [], 1.0, 0.0)
    for rows, delay in ((slice(0, 6), -0.46), (slice(-6, None), 0.46)):
        its_own, middle = (renderer_of(PLAIN)._exposed(shot, [], 1.0 + at, 0.0)[rows] for at in (delay, 0.0))
        assert np.abs(light[rows] - its_own).mean() < 0.3 * np.abs(light[rows] - middle).mean()


@pytest.mark.slow
def test_ten_frames_a_second_are_each_third_of_thirty(renderer_of: Callable[[Filming], ClipRenderer]) -> None:
    every = renderer_of(Filming(SIZE, 4)).clip(TURN)
    third = renderer_of(Filming(SIZE, 2, fps=10)).clip(TURN)
    assert (third.poses == every.poses[::3]).all()
    assert (third.depth == every.depth[::3]).all()


def built(*, bare: bool) -> Scene:
    return build_scene(np.random.default_rng(5), dict.fromkeys(GROUPS.split(), (0,)), bare=bare)


def test_a_bare_room_is_the_same_room_without_textures_and_with_less_in_it() -> None:
    plain, bare = built(bare=False), built(bare=True)
    assert (plain.size, plain.obstacles, plain.work_tops, plain.lights) == (
        bare.size, bare.obstacles, bare.work_tops, bare.lights
    )  # fmt: skip
    count = {name: sum(map(len, scene.instances.values())) for name, scene in (("plain", plain), ("bare", bare))}
    assert 10 < count["bare"] < count["plain"]
    for scene, is_flat in ((plain, False), (bare, True)):
        boxes = scene.instances["box"]
        shell = boxes[boxes[:, 12:15].max(axis=1) >= min(scene.size)]  # walls, floor and ceiling
        assert len(shell) >= 3
        assert (shell[:, 15:18] == shell[:, 18:21]).all() == is_flat
