"""Accuracy and rendered depth of benchmarked engines against ground truth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mvde.bench.pictures import Picture
from mvde.camera import Camera
from mvde.cli.assess import Assessor, _pictures_of, _shown
from mvde.contract import DepthKind, FocalConvention
from mvde.datasets.sample import DepthSample
from mvde.runtime.frame_camera import camera_factor, camera_of
from mvde.runtime.placement import place


class OneFrame:
    """Frame at 2 m, taken at twice the canonical focal length."""

    depth_range_m = (1e-3, 80.0)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> DepthSample:
        intrinsics = np.array([16, 16, 4, 4], np.float32)
        return DepthSample(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 2, np.float32), intrinsics, "frame")


def runtime(canonical: float | None) -> Any:
    """Runtime of an engine that says 1 m everywhere for a camera of focal length ``canonical`` (relative)."""
    kind = DepthKind.METRIC if canonical is None else DepthKind.METRIC_FOCAL
    convention = None if canonical is None else FocalConvention.GEOMETRIC
    contract = SimpleNamespace(depth_kind=kind, canonical_focal=canonical, focal_convention=convention)

    def infer(image: np.ndarray, *, camera: Any) -> SimpleNamespace:
        size = (image.shape[0], image.shape[1])
        factor = camera_factor(contract, camera_of(camera, size), place(size, (4, 4), "stretch"))
        return SimpleNamespace(depth=np.full(size, factor, np.float32), depth_kind=kind)

    return SimpleNamespace(manifest=contract, infer=infer)


@pytest.mark.parametrize(("canonical", "abs_rel"), [(1.0, 0.0), (None, 0.5)])
def test_an_engine_is_held_against_the_depth_of_each_frames_camera(canonical: float | None, abs_rel: float) -> None:
    found = Assessor(OneFrame(), 0, _pictures_of(OneFrame())).assess(runtime(canonical))
    assert found.accuracy is not None
    assert found.accuracy["abs_rel"] == pytest.approx(abs_rel)
    assert np.abs(found.depths[0] - 2).mean() / 2 == pytest.approx(abs_rel)


def test_the_users_camera_is_that_of_every_frame() -> None:
    assessor = Assessor(OneFrame(), 0, _pictures_of(OneFrame()), camera=lambda size: Camera(8, 8, 4, 4, size))
    found = assessor.assess(runtime(1.0))
    assert found.accuracy is not None
    assert found.accuracy["abs_rel"] == pytest.approx(0.5)
    np.testing.assert_allclose(found.depths[0], 1)
    assert [assessor.camera_words(), Assessor(OneFrame(), 0, ()).camera_words()] == ["camera given", "camera known"]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (DepthKind.INVERSE_RELATIVE, lambda truth_m: 50 / truth_m + 7),
        (DepthKind.SCALE_INVARIANT, lambda truth_m: 0.3 * truth_m),
        (DepthKind.INVERSE_CANONICAL, lambda truth_m: 1 / truth_m),
    ],
)
def test_depth_without_metres_is_shown_in_the_truths(kind: DepthKind, raw: Any) -> None:
    truth_m = np.linspace(1, 4, 64, dtype=np.float32).reshape(8, 8)
    result = SimpleNamespace(depth=raw(truth_m), depth_kind=kind, as_depth=lambda: 1 / raw(truth_m))
    shown = _shown(cast("Any", result), Picture(np.zeros((8, 8, 3), np.uint8), truth_m))
    np.testing.assert_allclose(shown, truth_m, rtol=1e-4)
    alone = _shown(cast("Any", result), Picture(np.zeros((8, 8, 3), np.uint8)))
    np.testing.assert_allclose(alone, 1 / raw(truth_m) if kind.is_inverse else raw(truth_m), rtol=1e-4)
