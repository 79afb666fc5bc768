"""Accuracy and rendered depth of benchmarked engines against ground truth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mvde.cli.assess import Assessor, _pictures_of
from mvde.datasets.sample import DepthSample


class OneFrame:
    """Frame at 2 m, taken at twice the canonical focal length."""

    depth_range_m = (1e-3, 80.0)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> DepthSample:
        intrinsics = np.array([16, 16, 4, 4], np.float32)
        return DepthSample(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 2, np.float32), intrinsics, "frame")


@pytest.mark.parametrize(("canonical", "abs_rel"), [(1.0, 0.0), (None, 0.5)])
def test_an_engine_is_held_against_the_depth_of_each_frames_camera(canonical: float | None, abs_rel: float) -> None:
    manifest = SimpleNamespace(canonical_focal=canonical, unit="m", valid_range=(0.1, 10.0))
    runtime = SimpleNamespace(
        manifest=manifest, infer=lambda image: SimpleNamespace(depth=np.ones(image.shape[:2], np.float32))
    )
    found = Assessor(OneFrame(), 0, _pictures_of(OneFrame())).assess(cast("Any", runtime))
    assert found.accuracy is not None
    assert found.accuracy["abs_rel"] == pytest.approx(abs_rel)
    assert np.abs(found.depths[0] - 2).mean() / 2 == pytest.approx(abs_rel)
