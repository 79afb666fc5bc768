"""Frames for ``mvde view``: the rate of files, and the pace at which they are shown."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mvde.cli.view_sources import PICTURES_PER_S, paced, rate_of
from mvde.contract import DepthKind
from mvde.robot.viewed import Viewed
from mvde.runtime.placement import Fit, place
from mvde.runtime.result import DepthResult, Timings

DATA = Path(__file__).parents[1] / "data"


def frames(stamps_s: list[float]) -> Iterator[Viewed]:
    """Frames of no particular content with these stamps."""
    result = DepthResult(
        np.ones((2, 2), np.float32),
        np.ones((1, 1), np.float32),
        (1, 1),
        Timings(0, 0, 0),
        ("mean",),
        DepthKind.METRIC,
        place((2, 2), (2, 2), Fit.STRETCH),
    )
    for index, stamp_s in enumerate(stamps_s):
        yield Viewed(index, np.zeros((2, 2, 3), np.uint8), result, round(stamp_s * 1e9))


def shown_at(
    stamps_s: list[float], slow_s: dict[int, float] | None = None, longest_gap_s: float = math.inf
) -> list[float]:
    """Seconds after the first frame at which each one was shown, by a viewer that takes ``slow_s`` for some."""
    shown: list[float] = []
    for viewed in paced(frames(stamps_s), longest_gap_s):
        shown.append(time.monotonic())
        time.sleep((slow_s or {}).get(viewed.index, 0))
    return [one - shown[0] for one in shown]


def test_frames_are_shown_at_the_intervals_of_their_stamps() -> None:
    _, second, third = shown_at([1000.0, 1000.1, 1000.25])
    assert (second, third) == pytest.approx((0.1, 0.25), abs=0.08)


def test_a_late_frame_does_not_make_the_next_ones_rush() -> None:
    _, second, third = shown_at([1000.0, 1000.1, 1000.2], slow_s={0: 0.3})
    assert second >= 0.3
    assert third - second > 0.05


def test_a_gap_of_an_hour_is_cut_short_and_the_pace_goes_on_after_it() -> None:
    _, second, third = shown_at([1000.0, 4600.0, 4600.1], longest_gap_s=0.2)
    assert second == pytest.approx(0.2, abs=0.08)
    assert third - second == pytest.approx(0.1, abs=0.08)


def test_a_stamp_that_goes_back_is_shown_at_once() -> None:
    assert shown_at([1000.0, 999.0])[-1] < 0.2


def test_a_video_has_its_own_rate_and_pictures_have_one_to_look_at() -> None:
    pytest.importorskip("av")
    assert rate_of([DATA / "rot.mp4"]) == pytest.approx(10)
    assert rate_of([DATA / "upright.png"]) == PICTURES_PER_S
    assert rate_of([DATA / "rot.mp4", DATA / "upright.png"]) == PICTURES_PER_S
    assert rate_of([Path("missing.mp4")]) == PICTURES_PER_S
