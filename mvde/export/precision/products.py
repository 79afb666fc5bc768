"""Selection of quantised products, their ranges and balancing, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.errors import UsageError
from mvde.export.precision import targets
from mvde.export.precision.balance import BalanceKind, ChannelBalance, balance, find_balances
from mvde.export.precision.calibrate import collect, thresholds
from mvde.export.precision.decide import decide
from mvde.export.precision.groups import Group, node_groups
from mvde.export.precision.lowered_model import LoweredModel, kept_nodes
from mvde.export.precision.probe import Probe
from mvde.export.precision.quantize import Product, QuantizationGrid, find_products, quantize
from mvde.export.range_method import RangeMethod

if TYPE_CHECKING:
    import onnx_ir as ir

    from mvde.records import ParityReport

_GAIN = 0.3
"""Share of the error that another range method, or balancing, must save to be chosen over min-max.

Clipped ranges look better than they are on the images they were fitted to: on rendered rooms the shipped model's 99th
percentile was 0.05 with min-max and 0.17 with percentiles, although photographs preferred the latter. Balancing fits
every channel's range tightly.
"""


@dataclass(frozen=True)
class Recipe:
    """Quantisation parameters: clipping magnitudes of activations, and activations balanced beforehand."""

    products: Mapping[str, Product]
    grid: QuantizationGrid
    limits: Mapping[str, float]
    balances: tuple[ChannelBalance, ...] = ()

    def lowered(self, base: ir.Model, groups: Collection[Group]) -> ir.Model:
        """Copy of ``base`` with Q/DQ pairs around the products of ``groups``, balanced if all readers are included."""
        copy = base.clone()
        chosen = [self.products[name] for group in groups for name in group.nodes if name in self.products]
        balances = [item for item in self.balances if set(item.readers) <= set(chosen)]
        balance(copy, balances)
        limits = {**self.limits, **{item.activation: item.largest for item in balances}}
        quantize(copy, chosen, limits, self.grid)
        return copy


@dataclass(frozen=True)
class _Trial:
    """Recipe, and the effect on depth of quantising every product with it."""

    recipe: Recipe
    effect: ParityReport


def lower_products(
    base: ir.Model, grid: QuantizationGrid, probe: Probe, images: NDArray[np.uint8], method: RangeMethod
) -> LoweredModel:
    """Insert Q/DQ pairs around the products of every group whose effect on depth allows it."""
    products = find_products(base.graph)
    if not products:
        raise UsageError(
            f"the graph has no product of an activation and a weight; there is nothing to quantise to {grid.precision}"
        )
    groups = [group for group in node_groups(base.graph) if any(name in products for name in group.nodes)]
    probe.progress(f"ranges of activations on {len(images)} images")
    statistics = collect(base, {item.activation: item.activation_axis for item in products.values()}, images)

    def measure(recipe: Recipe, what: str) -> _Trial:
        return _Trial(recipe, probe.measure(recipe.lowered(base, groups), what))

    trials = {
        name: measure(Recipe(products, grid, thresholds(statistics, name)), f"{name} ranges")
        for name in method.candidates
    }
    best = _best_method({name: trial.effect.p99_rel for name, trial in trials.items()})
    trial, balanced = _balanced(trials[best], find_balances(base.graph, products, statistics), measure)

    def lower(lowered: Collection[Group]) -> ir.Model:
        return trial.recipe.lowered(base, lowered)

    decision = decide(groups, lower, probe, targets.target(grid.precision), together=trial.effect)
    kept = kept_nodes(decision, grid.precision, {})
    return LoweredModel(lower(decision.lowered), decision, kept, best, balanced)


def _best_method(errors: Mapping[RangeMethod, float]) -> RangeMethod:
    """Min-max, if tried, unless another method's 99th percentile error is smaller by more than ``_GAIN``."""
    best = min(errors, key=lambda name: errors[name])
    usual = errors.get(RangeMethod.MINMAX)
    return best if usual is None or errors[best] < (1 - _GAIN) * usual else RangeMethod.MINMAX


def _balanced(
    trial: _Trial, balances: Sequence[ChannelBalance], measure: Callable[[Recipe, str], _Trial]
) -> tuple[_Trial, dict[str, str]]:
    """Trial with every kind of activation balanced that reduces the error, and the reasons.

    The range of a balanced activation is its largest magnitude, whatever the method of the others.
    """
    reasons = {}
    for kind in BalanceKind:
        ours = [item for item in balances if item.kind is kind and np.any(item.factors != 1)]
        if not ours:
            continue
        more = replace(trial.recipe, balances=(*trial.recipe.balances, *ours))
        candidate = measure(more, f"{kind} balanced")
        gains = candidate.effect.mean_rel < (1 - _GAIN) * trial.effect.mean_rel
        change = f"the mean error from {trial.effect.mean_rel:.1e} to {candidate.effect.mean_rel:.1e}"
        reasons[str(kind)] = f"{'balanced' if gains else 'left'}: balancing {len(ours)} changes {change}"
        if gains:
            trial = candidate
    return trial, reasons
