"""What of a graph is lowered to a float format: decided on calibration images, with the reasons."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.export.precision.cast import cast_nodes, refused_nodes
from mvde.export.precision.decide import Bundle, Decision, decide
from mvde.export.precision.groups import Group, node_groups
from mvde.export.precision.probe import Probe
from mvde.export.precision.session import largest_magnitudes
from mvde.export.precision.targets import TARGETS
from mvde.precision import Precision
from mvde.records import KeptNodes

if TYPE_CHECKING:
    import onnx_ir as ir

FP16_LARGEST = 65504.0
FP16_HEADROOM = 4.0
"""Factor that the largest activation of the calibration images must leave below fp16's largest number: depth maps of
other scenes drove activations of the shipped model to 2.4 times what the photographs did."""


@dataclass(frozen=True)
class Plan:
    """A typed graph, what stayed in a higher precision and why, and how ranges were taken (``"none"`` for floats).

    ``balanced`` is as in :class:`mvde.manifest.CalibrationRecord`.
    """

    model: ir.Model
    decision: Decision
    kept: tuple[KeptNodes, ...]
    method: str
    balanced: dict[str, str] = field(default_factory=dict)


def plan_floats(base: ir.Model, precision: str, probe: Probe) -> Plan:
    """``base`` with every group in ``precision`` that its effect on depth and its activations' range allow."""
    groups = node_groups(base.graph)
    probe.progress("ranges of activations")
    ranges = _too_large(base, groups, probe.images) if precision == "fp16" else {}

    def lower(lowered: Collection[Group]) -> ir.Model:
        wanted = {name for group in lowered for name in group.nodes}
        copy = base.clone()
        cast_nodes(copy, precision, {name for group in groups for name in group.nodes} - wanted)
        return copy

    decision = decide(groups, lower, probe, TARGETS[precision], ranges)
    kept = kept_nodes(decision, precision, ranges)
    refused = refused_nodes(base, precision)
    if refused:
        kept = (*kept, KeptNodes("nodes without the dtype", Precision.FP32, len(refused), next(iter(refused.values()))))
    return Plan(lower(decision.lowered), decision, kept, "none")


def lower_rest(plan: Plan, base: ir.Model, precision: str, probe: Probe) -> Plan:
    """``plan`` with the nodes that are not quantised in ``precision``, but for the groups that it does not suit.

    Those are found on ``base``, the fp32 graph: beside quantisation a changed last bit sends numbers to the next step,
    so that every group would seem to move depth.
    """
    floats = plan_floats(base, precision, probe)
    model = plan.model.clone()
    cast_nodes(model, precision, {name for group in floats.decision.kept for name in group.nodes})
    quantized = tuple(
        replace(item, dtype=Precision(precision)) for item in plan.kept if item.group not in _names(floats.kept)
    )
    return replace(plan, model=model, kept=quantized + floats.kept)


def _names(kept: tuple[KeptNodes, ...]) -> set[str]:
    return {item.group for item in kept}


def kept_nodes(decision: Decision, precision: str, ranges: dict[str, str]) -> tuple[KeptNodes, ...]:
    """The groups that stay in fp32, each with its reason: what its activations reach, or what it did to depth."""
    kept = []
    for group in decision.kept:
        bundle = decision.reasons.get(group.name)
        reason = ranges.get(group.name, _measured(bundle, precision) if bundle else "")
        kept.append(KeptNodes(group.name, Precision.FP32, group.num_computing, reason))
    return tuple(kept)


def _measured(bundle: Bundle, precision: str) -> str:
    where = "there" if len(bundle.groups) == 1 else f"there and in {len(bundle.groups) - 1} groups like it"
    return f"{precision} {where} alone moves depth by {bundle.effect.mean_rel:.1e} on average"


def _too_large(base: ir.Model, groups: Sequence[Group], images: NDArray[np.uint8]) -> dict[str, str]:
    """Groups whose activations come too near to fp16's largest number on the images → what they reach."""
    group_of = {name: group.name for group in groups for name in group.nodes}
    largest: dict[str, float] = {}
    for name, reached in largest_magnitudes(base, list(group_of), images).items():
        largest[group_of[name]] = max(largest.get(group_of[name], 0.0), reached)
    return {
        name: f"its activations reach {reached:.3g}, too near to fp16's largest number {FP16_LARGEST:g}"
        for name, reached in largest.items()
        if not reached * FP16_HEADROOM <= FP16_LARGEST
    }
