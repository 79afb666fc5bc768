"""The gate of typed graphs for kinds of depth that are not metres."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.contract import DepthKind
from mvde.errors import ParityError
from mvde.export.precision import HeldOut
from mvde.export.precision.gate import check, gate_run
from mvde.records import GateTolerance

DEPTH_M = np.linspace(1, 5, 2 * 32 * 48, dtype=np.float32).reshape(2, 32, 48)
IMAGES = np.zeros((2, 32, 48, 3), np.uint8)
TOLERANCE = GateTolerance(abs_rel=0.05, delta1=0.01, mean_rel=3e-3, p99_rel=2e-2)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (DepthKind.METRIC, DEPTH_M),
        (DepthKind.SCALE_INVARIANT, 7 * DEPTH_M),
        (DepthKind.INVERSE_CANONICAL, 1 / DEPTH_M),
        (DepthKind.INVERSE_RELATIVE, 900 / DEPTH_M + 40),
    ],
)
def test_a_map_is_held_against_the_truth_as_its_kind_allows(kind: DepthKind, raw: np.ndarray) -> None:
    wrong = raw * np.linspace(0.9, 1.1, 48, dtype=np.float32)
    run = gate_run(wrong, raw, HeldOut(IMAGES, "rooms", DEPTH_M), 16, kind)
    assert run.abs_rel[0] == pytest.approx(0, abs=1e-5)
    assert 0.005 < run.abs_rel[1] < 0.2
    assert (run.measured.reference_range is not None) == kind.is_inverse


def test_inverse_maps_of_which_no_truth_is_known_are_judged_by_their_range() -> None:
    raw = 900 / DEPTH_M + 4000  # an offset that means nothing, far larger than what varies
    held_out = HeldOut(IMAGES, "photographs")
    wrong = raw + np.float32(60)
    run = gate_run(wrong, raw, held_out, 16, DepthKind.INVERSE_RELATIVE)
    with pytest.raises(ParityError, match=r"mean \|Δ\|/range is .*; turn back"):
        check([run], TOLERANCE, "the int8 graph", lambda: "; turn back")
    assert gate_run(wrong, raw, held_out, 16).measured.mean_rel < 0.015  # relative to depth it looks small
    check([gate_run(raw + np.float32(0.01), raw, held_out, 16, DepthKind.INVERSE_RELATIVE)], TOLERANCE, "it", str)
