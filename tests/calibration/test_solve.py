"""Convergence of the reweighted fit of scale and shift."""

from __future__ import annotations

import numpy as np
import pytest

from mvde.calibration import solve
from mvde.contract import DepthKind
from mvde.errors import CalibrationError


def test_further_rounds_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth of 0.5 to 8 m with 2 % of noise, and a fifth of the points wrong by up to 60 %."""
    rng, changes, rounds = np.random.default_rng(0), [], solve.NUM_ROUNDS
    while len(changes) < 200:
        depth = rng.uniform(0.5, 8, rng.integers(8, 40))
        scale, shift = rng.uniform(0.001, 0.1), rng.uniform(0.01, 0.2)
        values = (1 / depth - shift) / scale
        depth, values = depth[values > 0], values[values > 0]
        if len(values) < 5 or depth.max() < 1.6 * depth.min():
            continue
        noise = rng.normal(1, 0.02, len(values))
        wrong = rng.random(len(values)) < 0.2
        noise[wrong] = rng.uniform(0.6, 1.6, wrong.sum())
        found = []
        for number in (rounds, 4 * rounds):
            monkeypatch.setattr(solve, "NUM_ROUNDS", number)
            try:
                fit = solve.solve(DepthKind.INVERSE_RELATIVE, values, depth * noise)
            except CalibrationError:  # too few right points
                break
            found.append(solve.apply(DepthKind.INVERSE_RELATIVE, *fit, values))
        if len(found) == 2:
            changes.append(np.abs(found[0] / found[1] - 1).max())
    assert np.percentile(changes, 99) < 1e-3
