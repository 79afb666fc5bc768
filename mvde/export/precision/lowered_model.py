"""Result of lowering: the graph in memory, with reasons for the nodes kept."""

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
    """Typed graph, nodes kept in a higher precision with reasons, and the range method (``None`` for float formats).

    ``balanced`` is as in :class:`mvde.records.CalibrationRecord`.
    """

    model: ir.Model
    decision: Decision
    kept: tuple[KeptNodes, ...]
    method: RangeMethod | None = None
    balanced: dict[str, str] = field(default_factory=dict)


def kept_nodes(decision: Decision, precision: Precision, ranges: Mapping[str, str]) -> tuple[KeptNodes, ...]:
    """Groups kept in fp32, each with its reason: its activation range or its effect on depth."""
    kept = []
    for group in decision.kept:
        bundle = decision.reasons.get(group.name)
        reason = ranges.get(group.name, _measured(bundle, precision) if bundle else "")
        kept.append(KeptNodes(group.name, Precision.FP32, group.num_computing, reason))
    return tuple(kept)


def _measured(bundle: Bundle, precision: Precision) -> str:
    where = "there" if len(bundle.groups) == 1 else f"there and in {len(bundle.groups) - 1} groups like it"
    return f"{precision} {where} alone changes depth by {bundle.effect.mean_rel:.1e} on average"
