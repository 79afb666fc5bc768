"""Which products of a graph are quantised, how their ranges are taken, and what is balanced: decided by measuring."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.errors import UsageError
from mvde.export.precision.balance import KINDS, Seam, balance, find_seams
from mvde.export.precision.calibrate import collect, thresholds
from mvde.export.precision.decide import decide
from mvde.export.precision.groups import Group, node_groups
from mvde.export.precision.options import METHODS
from mvde.export.precision.plan import Plan, kept_nodes
from mvde.export.precision.probe import Probe
from mvde.export.precision.quantize import Product, find_products, quantize
from mvde.export.precision.targets import TARGETS

if TYPE_CHECKING:
    import onnx_ir as ir

    from mvde.records import ParityReport

_GAIN = 0.3
"""Share of the error that another way to take ranges must save, and balancing, whose ranges fit every channel tightly.

On the images that set it a range that was cut short looks better than it is: on rendered rooms the shipped model's 99th
percentile was 0.05 with min-max and 0.17 with percentiles, where photographs had preferred the latter."""


@dataclass(frozen=True)
class Recipe:
    """How products are quantised: magnitudes that activations are clipped at, and what is balanced before."""

    products: Mapping[str, Product]
    precision: str
    scale_dtype: str
    limits: Mapping[str, float]
    seams: tuple[Seam, ...] = ()

    def lowered(self, base: ir.Model, groups: Collection[Group]) -> ir.Model:
        """Copy of ``base`` with Q/DQ pairs round the products of ``groups``, balanced where all readers are there."""
        copy = base.clone()
        chosen = [self.products[name] for group in groups for name in group.nodes if name in self.products]
        seams = [seam for seam in self.seams if set(seam.takers) <= set(chosen)]
        balance(copy, seams)
        limits = {**self.limits, **{seam.activation: seam.largest for seam in seams}}
        quantize(copy, chosen, limits, self.precision, self.scale_dtype)
        return copy


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
    recipes = {
        name: Recipe(products, precision, scale_dtype, thresholds(statistics, name))
        for name in (METHODS if method == "auto" else (method,))
    }
    effects = {name: probe.measure(one.lowered(base, groups), f"{name} ranges") for name, one in recipes.items()}
    best = _best_method({name: effect.p99_rel for name, effect in effects.items()})
    seams = find_seams(base.graph, products, statistics)
    recipe, effect, balanced = _balanced(base, groups, recipes[best], effects[best], seams, probe)

    def lower(lowered: Collection[Group]) -> ir.Model:
        return recipe.lowered(base, lowered)

    decision = decide(groups, lower, probe, TARGETS[precision], together=effect)
    return Plan(lower(decision.lowered), decision, kept_nodes(decision, precision, {}), best, balanced)


def _best_method(errors: dict[str, float]) -> str:
    """Min-max, unless the 99th percentile of another method's error is smaller by more than ``_GAIN``."""
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < (1 - _GAIN) * errors.get("minmax", math.inf) else "minmax"


def _balanced(
    base: ir.Model, groups: Collection[Group], recipe: Recipe, effect: ParityReport, seams: list[Seam], probe: Probe
) -> tuple[Recipe, ParityReport, dict[str, str]]:
    """The recipe with every kind of activation balanced that depth gains from, what it measures, and why.

    The range of a balanced activation is the largest magnitude that it reached, whatever the method of the others.
    """
    reasons = {}
    for kind in KINDS:
        ours = [seam for seam in seams if seam.kind == kind and np.any(seam.factors != 1)]
        if not ours:
            continue
        trial = replace(recipe, seams=(*recipe.seams, *ours))
        measured = probe.measure(trial.lowered(base, groups), f"{kind} balanced")
        gains = measured.mean_rel < (1 - _GAIN) * effect.mean_rel
        change = f"the mean error from {effect.mean_rel:.1e} to {measured.mean_rel:.1e}"
        reasons[kind] = f"{'balanced' if gains else 'left'}: balancing {len(ours)} moves {change}"
        if gains:
            recipe, effect = trial, measured
    return recipe, effect, reasons
