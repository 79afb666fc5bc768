"""Accuracy of what was delivered over time, on clips that are flat walls at known distances."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mvde.pipelines.eval_on_time import delivered_accuracy
from mvde.protocols import EvaluationProtocol

SMALL, LARGE = (2, 2), (4, 4)
PROTOCOL = EvaluationProtocol((0.1, 100.0))


class Walls:
    """Two clips of four frames at 20 frames a second: walls at 1, 2, 3, 4 m, and 10 times as far; pixels say so."""

    fps, num_frames, num_clips = 20.0, 4, 2

    def clips(self) -> Iterator[SimpleNamespace]:
        for times in (1, 10):
            metres = times * np.arange(1, 5, dtype=np.float32)
            shape = (4, 8, 8)
            yield SimpleNamespace(
                rgb=np.broadcast_to(metres.astype(np.uint8)[:, None, None, None], (*shape, 3)),
                depth_m=np.broadcast_to(metres[:, None, None], shape),
                intrinsics=np.full((4, 4), 4, np.float32),
            )


def runtime(factor: float) -> Any:
    """An engine whose depth is the brightness times a factor."""
    return SimpleNamespace(
        infer=lambda image, camera: SimpleNamespace(depth=image[..., 0].astype(np.float32) * factor, camera=camera)
    )


def accuracy(*runs: list[Any], **options: Any) -> list[dict[str, float]]:
    engines = {SMALL: runtime(1.5), LARGE: runtime(1.0)}
    return delivered_accuracy(runs, engines, Walls(), PROTOCOL, fps=10.0, **options)  # type: ignore[arg-type]


def test_a_stale_result_is_held_against_the_frame_that_it_stands_for() -> None:
    # At 10 frames a second the camera sees every second frame: 1, 3, 10 and 30 m, and from the fifth on 1 m again.
    fresh = [(number, LARGE) for number in range(5)]
    stale = [(0, LARGE), (0, LARGE), (2, LARGE), (2, LARGE), (4, LARGE)]
    half, one = accuracy([(number, SMALL) for number in range(5)], fresh)
    assert half == pytest.approx({"delivered_abs_rel": 0.5, "delivered_delta1": 0.0, "delivered_frames": 5})
    assert one == pytest.approx({"delivered_abs_rel": 0.0, "delivered_delta1": 1.0, "delivered_frames": 5})
    (late,) = accuracy(stale)
    assert late["delivered_abs_rel"] == pytest.approx(2 * (2 / 3) / 5)  # 1 m for 3 m, and 10 m for 30 m


def test_results_of_the_clip_before_and_frames_without_a_result_do_not_count() -> None:
    (found,) = accuracy([None, (1, LARGE), (1, LARGE), (3, LARGE), (3, LARGE)])
    assert found["delivered_frames"] == 2
    assert accuracy([None, None]) == [{}]


def test_as_many_whole_clips_are_taken_as_are_asked_for() -> None:
    (found,) = accuracy([(number, LARGE) for number in range(4)], max_frames=4)
    assert found == pytest.approx({"delivered_abs_rel": 0.0, "delivered_delta1": 1.0, "delivered_frames": 4})
