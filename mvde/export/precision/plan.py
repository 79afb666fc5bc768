"""What of a graph is lowered: decided on calibration images, for float formats and for 8-bit products."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.errors import UsageError
from mvde.export.precision.calibrate import collect, thresholds
from mvde.export.precision.cast import cast_nodes, refused_nodes
from mvde.export.precision.decide import Bundle, Decision, decide
from mvde.export.precision.groups import Group, node_groups
from mvde.export.precision.options import METHODS
from mvde.export.precision.probe import Probe
from mvde.export.precision.quantize import find_products, quantize
from mvde.export.precision.session import largest_magnitudes
from mvde.export.precision.targets import TARGETS
from mvde.manifest import KeptNodes

if TYPE_CHECKING:
    import onnx_ir as ir

FP16_LARGEST = 65504.0
FP16_HEADROOM = 4.0
"""Factor that the largest activation of the calibration images must leave below fp16's largest number: depth maps of
other scenes drove activations of the shipped model to 2.4 times what the photographs did."""

_CLIPPING_GAIN = 0.3


@dataclass(frozen=True)
class Plan:
    """A typed graph, what stayed in a higher precision and why, and how ranges were taken (``"none"`` for floats)."""

    model: ir.Model
    decision: Decision
    kept: tuple[KeptNodes, ...]
    method: str


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
    kept = _kept(decision, precision, ranges)
    refused = refused_nodes(base, precision)
    if refused:
        kept = (*kept, KeptNodes("nodes without the dtype", "fp32", len(refused), next(iter(refused.values()))))
    return Plan(lower(decision.lowered), decision, kept, "none")


def plan_products(
    base: ir.Model, precision: str, probe: Probe, images: NDArray[np.uint8], method: str, scale_dtype: str
) -> Plan:
    """``base`` with Q/DQ pairs round the products of every group that its effect on depth allows."""
    products = find_products(base.graph)
    if not products:
        raise UsageError(
            f"the graph has no product of an activation and a weight; there is nothing to put in {precision}"
        )
    groups = [group for group in node_groups(base.graph) if any(name in products for name in group.nodes)]
    probe.progress(f"ranges of activations on {len(images)} images")
    statistics = collect(base, {item.activation: item.activation_axis for item in products.values()}, images)

    def lowered_by(limits: dict[str, float], lowered: Collection[Group]) -> ir.Model:
        copy = base.clone()
        chosen = [products[name] for group in lowered for name in group.nodes if name in products]
        quantize(copy, chosen, limits, precision, scale_dtype)
        return copy

    candidates = METHODS if method == "auto" else (method,)
    limits = {name: thresholds(statistics, name) for name in candidates}
    effects = {name: probe.measure(lowered_by(limits[name], groups), f"{name} ranges") for name in candidates}
    best = _best_method({name: effect.p99_rel for name, effect in effects.items()})
    decision = decide(
        groups,
        lambda lowered: lowered_by(limits[best], lowered),
        probe,
        TARGETS[precision],
        together=effects[best],
    )
    return Plan(lowered_by(limits[best], decision.lowered), decision, _kept(decision, precision, {}), best)


def _best_method(errors: dict[str, float]) -> str:
    """Min-max, unless the 99th percentile of another method's error is smaller by more than ``_CLIPPING_GAIN``.

    On the images that set it a range that was cut short looks better than it is: on rendered rooms the shipped model's
    99th percentile was 0.05 with min-max and 0.17 with percentiles, where photographs had preferred the latter.
    """
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < (1 - _CLIPPING_GAIN) * errors.get("minmax", math.inf) else "minmax"


def lower_rest(plan: Plan, base: ir.Model, precision: str, probe: Probe) -> Plan:
    """``plan`` with the nodes that are not quantised in ``precision``, but for the groups that it does not suit.

    Those are found on ``base``, the fp32 graph: beside quantisation a changed last bit sends numbers to the next step,
    so that every group would seem to move depth.
    """
    floats = plan_floats(base, precision, probe)
    model = plan.model.clone()
    cast_nodes(model, precision, {name for group in floats.decision.kept for name in group.nodes})
    quantized = tuple(replace(item, dtype=precision) for item in plan.kept if item.group not in _names(floats.kept))
    return replace(plan, model=model, kept=quantized + floats.kept)


def _names(kept: tuple[KeptNodes, ...]) -> set[str]:
    return {item.group for item in kept}


def _kept(decision: Decision, precision: str, ranges: dict[str, str]) -> tuple[KeptNodes, ...]:
    kept = []
    for group in decision.kept:
        bundle = decision.reasons.get(group.name)
        reason = ranges.get(group.name, _measured(bundle, precision) if bundle else "")
        kept.append(KeptNodes(group.name, "fp32", group.num_computing, reason))
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
