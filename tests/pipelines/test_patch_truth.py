"""Truth of an engine's patches from a frame's depth, against loops over the frame's pixels."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.pipelines.patch_truth import patch_truth
from mvde.runtime.placement import place


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_a_pixel_belongs_to_the_patch_of_its_centre(fit: str) -> None:
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(1, 3, (40, 90)).astype(np.float32)
    counted = rng.random((40, 90)) > 0.05
    counted[:20, :45] = False
    placement = place((40, 90), (32, 48), fit)
    found = patch_truth(depth_m, counted, placement, 16)
    members: dict[int, list[tuple[float, bool]]] = {number: [] for number in range(6)}
    source, target = placement.source_box, placement.target_box
    for y in range(source.top, source.bottom):
        for x in range(source.left, source.right):
            down = target.top + (y - source.top + 0.5) * target.size[0] / source.size[0]
            across = target.left + (x - source.left + 0.5) * target.size[1] / source.size[1]
            members[int(down // 16) * 3 + int(across // 16)].append((float(depth_m[y, x]), bool(counted[y, x])))
    for number, pixels in members.items():
        known = [depth for depth, is_counted in pixels if is_counted]
        assert found.is_known[number] == bool(known and len(known) >= 0.9 * len(pixels))
        if known:
            assert found.mean_m[number] == pytest.approx(np.mean(known))
            assert found.nearest_m[number] == min(known)
