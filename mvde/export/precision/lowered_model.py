"""A graph that was lowered, in memory, with the reasons for what was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mvde.export.precision.decide import Bundle, Decision
from mvde.precision import Precision
from mvde.records import KeptNodes

if TYPE_CHECKING:
    import onnx_ir as ir

    from mvde.export.range_method import RangeMethod


@dataclass(frozen=True)
class LoweredModel:
    """A typed graph, what stayed in a higher precision and why, and how ranges were taken (``None`` for floats).

    ``balanced`` is as in :class:`mvde.records.CalibrationRecord`.
    """

    model: ir.Model
    decision: Decision
    kept: tuple[KeptNodes, ...]
    method: RangeMethod | None = None
    balanced: dict[str, str] = field(default_factory=dict)


def kept_nodes(decision: Decision, precision: Precision, ranges: Mapping[str, str]) -> tuple[KeptNodes, ...]:
    """The groups that stay in fp32, each with its reason: what its activations reach, or what it did to depth."""
    kept = []
    for group in decision.kept:
        bundle = decision.reasons.get(group.name)
        reason = ranges.get(group.name, _measured(bundle, precision) if bundle else "")
        kept.append(KeptNodes(group.name, Precision.FP32, group.num_computing, reason))
    return tuple(kept)


def _measured(bundle: Bundle, precision: Precision) -> str:
    where = "there" if len(bundle.groups) == 1 else f"there and in {len(bundle.groups) - 1} groups like it"
    return f"{precision} {where} alone moves depth by {bundle.effect.mean_rel:.1e} on average"
