"""Helpers for typed graphs: targets that random models meet on noise, and gate measurements."""

from __future__ import annotations

import pytest

from mvde.export.precision import targets
from mvde.precision import Precision
from mvde.records import GateTolerance, LoweringRecord, ParityReport

WIDE = targets.Target(1.0, 1.0)


def widen_targets(
    patch: pytest.MonkeyPatch, *precisions: Precision, target: targets.Target = WIDE, mean_rel: float = 1.0
) -> None:
    """Widen targets and gate, which a random model on noise cannot meet."""
    usual_target, usual_tolerance = targets.target, targets.gate_tolerance
    tolerance = GateTolerance(1.0, 1.0, mean_rel, 1.0)
    patch.setattr(targets, "target", lambda asked: target if asked in precisions else usual_target(asked))
    patch.setattr(targets, "gate_tolerance", lambda asked: tolerance if asked in precisions else usual_tolerance(asked))


def judged(record: LoweringRecord | None) -> ParityReport:
    """Gate measurements on its first set of images."""
    assert record is not None
    assert record.gate is not None
    return record.gate.runs[0].measured
