"""The benchmark of steady depth: frames at the engine's resolution, relative inverse depth, and drift."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mvde.contract import DepthKind
from mvde.datasets.clips import Clip
from mvde.steadiness import frame_abs_rel, point_pairs

T, SIZE = 3, (48, 64)


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    """Names of the script, as attributes."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/steadiness.py")))


@pytest.fixture
def clip() -> Clip:
    """A camera that moves along a slanted wall, whose picture is its depth."""
    rng, (height, width) = np.random.default_rng(0), SIZE
    right = np.broadcast_to((np.arange(width) - 31.5) / 50, SIZE)
    depth = np.stack([(2 + 0.1 * t) / (1 - 0.5 * right) for t in range(T)]).astype(np.float32)
    poses = np.tile(np.eye(3, 4), (T, 1, 1))
    poses[:, 2, 3] = -0.1 * np.arange(T)
    intrinsics = np.tile(np.float32([50, 50, 31.5, 23.5]), (T, 1))
    rgb = rng.integers(0, 255, (T, height, width, 3), dtype=np.uint8)
    return Clip("clip 0", "real", rgb, depth, intrinsics, poses, np.zeros(T, np.bool_), np.arange(T) / 30)


def test_a_clip_at_another_size_shows_the_same_points(script: SimpleNamespace, clip: Clip) -> None:
    small = script.at_size(clip, (16, 32))
    assert (small.rgb.shape, small.depth_m.shape) == ((T, 16, 32, 3), (T, 16, 32))
    np.testing.assert_allclose(small.intrinsics[0], [25, 50 / 3, 15.5, 7.5], rtol=1e-6)
    assert abs(small.rgb[0, 5, 7].astype(float) - clip.rgb[0, 15:18, 14:16].mean(axis=(0, 1))).max() <= 1.5
    for one in (clip, small):
        pairs = point_pairs(one.depth_m, one.intrinsics, one.poses, one.is_cut)
        assert len(pairs[1].now) > 0.2 * one.depth_m[0].size  # of a quarter that is looked at
    assert script.at_size(clip, SIZE) is clip


def test_relative_depth_of_each_frame_needs_a_scale_and_a_shift_of_its_own(script: SimpleNamespace, clip: Clip) -> None:
    relative = script.as_relative(clip.depth_m, "clip 0")
    metres = script.metres_of(relative, clip.depth_m, DepthKind.INVERSE_RELATIVE)(relative)
    assert frame_abs_rel(metres, clip.depth_m).max() > 0.01
    for one, truth in zip(relative, clip.depth_m, strict=True):
        columns = np.stack([(1 / truth).ravel(), np.ones(truth.size)], axis=1)
        (scale, shift), error, *_ = np.linalg.lstsq(columns, one.ravel(), rcond=None)
        assert error < 1e-6
        assert abs(np.log(scale)) < 0.2
        assert scale != pytest.approx(1, abs=1e-3)
        assert shift != pytest.approx(0, abs=1e-3)


def test_drift_is_of_long_clips_alone(script: SimpleNamespace) -> None:
    short = {"none": script.Row(1, 1, 1, 1, 1, (1,) * 4)}
    assert script.drift_table([short]) == ""
    long = {
        name: script.Row(1, 1, 1, 1, 1, (1,) * 4, first, last)
        for name, first, last in (("none", 0.2, 0.1), ("stabilised", 0.1, 0.2))
    }
    assert "| stabilised | 0.500 of 0.200 | 2.000 of 0.100 |" in script.drift_table([long, short])
