"""What tests of typed graphs share: targets that random models on noise meet, and what a gate measured."""

from __future__ import annotations

import pytest
from mvde.records import GateTolerance, LoweringRecord, ParityReport

from mvde.export.precision import targets
from mvde.precision import Precision

WIDE = targets.Target(1.0, 1.0)


def widen_targets(
    patch: pytest.MonkeyPatch, *precisions: Precision, target: targets.Target = WIDE, mean_rel: float = 1.0
) -> None:
    """A model of random weights on noise is worse than what the targets and the gate are made for."""
    usual_target, usual_tolerance = targets.target, targets.gate_tolerance
    tolerance = GateTolerance(1.0, 1.0, mean_rel, 1.0)
    patch.setattr(targets, "target", lambda asked: target if asked in precisions else usual_target(asked))
    patch.setattr(targets, "gate_tolerance", lambda asked: tolerance if asked in precisions else usual_tolerance(asked))


def judged(record: LoweringRecord | None) -> ParityReport:
    """What the gate measured on the first of its sets of images."""
    assert record is not None
    assert record.gate is not None
    return record.gate.runs[0].measured
