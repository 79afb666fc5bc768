"""Which groups of nodes stay in a higher precision: found by lowering each alone and measuring what depth does."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mvde.export.precision.emulate import emulated
from mvde.export.precision.groups import Group
from mvde.export.precision.session import GraphSession
from mvde.export.precision.targets import NEGLIGIBLE, Target
from mvde.parity import ParityReport, compare_depth

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

Lower = Callable[[Collection[Group]], "ir.Model"]
"""Groups → a copy of the fp32 graph in which those groups, and no others, are lowered."""


@dataclass
class Probe:
    """Measures lowered graphs against the fp32 graph's depth of the same images."""

    images: NDArray[np.uint8]
    reference: NDArray[np.float32]
    patch_size: int

    def measure(self, model: ir.Model) -> ParityReport:
        """Differences in depth of a typed graph, computed as its dtypes say; infinite where it is not finite."""
        return compare_depth(GraphSession(emulated(model)).depth(self.images), self.reference, self.patch_size)


@dataclass(frozen=True)
class Decision:
    """Groups that are lowered, groups that stay, and what each did to depth alone, where that was needed to decide."""

    lowered: tuple[Group, ...]
    kept: tuple[Group, ...]
    alone: Callable[[Group], ParityReport]
    effects: dict[str, ParityReport] = field(default_factory=dict)

    def worst(self, count: int) -> list[tuple[str, ParityReport]]:
        """The lowered groups that move depth most when they alone are; measured now, if that was not needed before."""
        effects = {group.name: self.effects.get(group.name) or self.alone(group) for group in self.lowered}
        return sorted(effects.items(), key=lambda item: -_size(item[1]))[:count]


def decide(groups: Sequence[Group], lower: Lower, probe: Probe, target: Target, must_stay: Collection[str]) -> Decision:
    """The largest set of groups, taken by their effect, whose lowering meets ``target`` on the probe's images.

    Groups named in ``must_stay`` are kept whatever they measure. Errors of groups add like independent ones, which
    says how many to leave out before the next measurement.
    """

    def alone(group: Group) -> ParityReport:
        return probe.measure(lower([group]))

    candidates = [group for group in groups if group.name not in must_stay]
    forced = [group for group in groups if group.name in must_stay]
    if _meets(probe.measure(lower(candidates)), target):
        return Decision(tuple(candidates), tuple(forced), alone)
    effects = {group.name: alone(group) for group in candidates}
    order = sorted(candidates, key=lambda group: -_size(effects[group.name]))
    num_kept = _first_guess(order, effects, target)
    while num_kept < len(order):
        lowered = order[num_kept:]
        next_effect = effects[lowered[0].name]
        if _meets(probe.measure(lower(lowered)), target) or _size(next_effect) < NEGLIGIBLE * target.mean_rel:
            break
        num_kept += 1
    kept = {group.name for group in order[:num_kept]} | {group.name for group in forced}
    return Decision(
        tuple(group for group in groups if group.name not in kept),
        tuple(group for group in groups if group.name in kept),
        alone,
        effects,
    )


def _first_guess(order: Sequence[Group], effects: dict[str, ParityReport], target: Target) -> int:
    """Groups to keep so that the squares of the others' errors sum to the target's."""
    for num_kept in range(1, len(order)):
        rest = [effects[group.name] for group in order[num_kept:]]
        mean = math.sqrt(sum(report.mean_rel**2 for report in rest))
        p99 = math.sqrt(sum(report.p99_rel**2 for report in rest))
        if mean <= target.mean_rel and p99 <= target.p99_rel:
            return num_kept
    return len(order)


def _size(report: ParityReport) -> float:
    return report.mean_rel if math.isfinite(report.mean_rel) else math.inf


def _meets(report: ParityReport, target: Target) -> bool:
    return report.mean_rel <= target.mean_rel and report.p99_rel <= target.p99_rel
