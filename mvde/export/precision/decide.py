"""Which groups of nodes stay in a higher precision: found by lowering them alone and measuring what depth does."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mvde.export.precision.groups import Group, first_bundles
from mvde.export.precision.probe import Probe
from mvde.export.precision.targets import NEGLIGIBLE, Target
from mvde.records import ParityReport

if TYPE_CHECKING:
    import onnx_ir as ir

Lower = Callable[[Collection[Group]], "ir.Model"]
"""Groups → a copy of the fp32 graph in which those groups, and no others, are lowered."""

MAX_ALONE = 40
"""Measurements of bundles alone, after which none is halved further and heavy ones are kept whole."""


@dataclass(frozen=True)
class Bundle:
    """Groups, and what depth does when they are lowered and nothing else is."""

    groups: tuple[Group, ...]
    effect: ParityReport

    @property
    def size(self) -> float:
        """What bundles are ordered by: the mean relative depth error."""
        return self.effect.mean_rel if math.isfinite(self.effect.mean_rel) else math.inf


@dataclass
class Ranking:
    """Bundles of groups, each measured alone once; those that matter are halved until they are single groups.

    Most of a large tower's branches matter to nobody, and are never measured one by one.
    """

    measure_alone: Callable[[Sequence[Group]], ParityReport]
    bundles: list[Bundle]
    num_halvings: int

    @classmethod
    def of(cls, groups: Sequence[Group], measure_alone: Callable[[Sequence[Group]], ParityReport]) -> Ranking:
        """A ranking of ``groups`` in their first bundles."""
        found = [Bundle(members, measure_alone(members)) for members in first_bundles(groups)]
        return cls(measure_alone, found, max(0, MAX_ALONE - len(found)) // 2)

    def ordered(self) -> list[Bundle]:
        """Bundles, the heaviest first."""
        return sorted(self.bundles, key=lambda bundle: -bundle.size)

    def halve(self, among: Sequence[Bundle]) -> bool:
        """Whether the first of ``among`` that has several groups gave way to its two halves, now measured."""
        wide = next((bundle for bundle in among if len(bundle.groups) > 1), None)
        if wide is None or self.num_halvings == 0:
            return False
        self.num_halvings -= 1
        middle = len(wide.groups) // 2
        halves = (wide.groups[:middle], wide.groups[middle:])
        self.bundles.remove(wide)
        self.bundles += [Bundle(members, self.measure_alone(members)) for members in halves]
        return True

    def worst(self, count: int) -> list[Bundle]:
        """The ``count`` heaviest bundles, halved where they are wide."""
        while self.halve(self.ordered()[:count]):
            pass
        return self.ordered()[:count]


@dataclass(frozen=True)
class Decision:
    """Groups that are lowered, groups that stay, and what those did to depth, where that was needed to decide."""

    lowered: tuple[Group, ...]
    kept: tuple[Group, ...]
    ranking: Callable[[], Ranking]
    reasons: dict[str, Bundle] = field(default_factory=dict)

    def worst(self, count: int) -> list[Bundle]:
        """The lowered bundles that move depth most when they alone are; measured now, if that was not needed before."""
        return self.ranking().worst(count)


def decide(
    groups: Sequence[Group],
    lower: Lower,
    probe: Probe,
    target: Target,
    must_stay: Collection[str] = (),
    together: ParityReport | None = None,
) -> Decision:
    """The largest set of groups, taken by their effect, whose lowering meets ``target`` on the probe's images.

    Groups named in ``must_stay`` are kept whatever they measure; ``together`` is what all others measure together, if
    that is known. Errors of bundles add like independent ones, which says how many to leave out before the next
    measurement.
    """

    def measure_alone(members: Sequence[Group]) -> ParityReport:
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        return probe.measure(lower(members), f"{members[0].name}{more}, alone")

    candidates = [group for group in groups if group.name not in must_stay]
    kept = [group for group in groups if group.name in must_stay]
    if _meets(together or probe.measure(lower(candidates), "all groups"), target):
        return Decision(tuple(candidates), tuple(kept), lambda: Ranking.of(candidates, measure_alone))
    ranking = Ranking.of(candidates, measure_alone)
    heavy = _heavy(ranking, lower, probe, target)
    reasons = {group.name: bundle for bundle in heavy for group in bundle.groups}
    stays = {group.name for group in kept} | set(reasons)
    ranking.bundles = [bundle for bundle in ranking.bundles if bundle not in heavy]
    return Decision(
        tuple(group for group in groups if group.name not in stays),
        tuple(group for group in groups if group.name in stays),
        lambda: ranking,
        reasons,
    )


def _heavy(ranking: Ranking, lower: Lower, probe: Probe, target: Target) -> list[Bundle]:
    """The heaviest bundles, as many as must stay so that lowering the others meets ``target``."""
    at_least = 1
    while True:
        order = ranking.ordered()
        num_kept = max(at_least, _first_guess(order, target))
        if ranking.halve(order[:num_kept]):
            continue
        rest = order[num_kept:]
        if not rest or rest[0].size < NEGLIGIBLE * target.mean_rel:
            return order[:num_kept]
        lowered = [group for bundle in rest for group in bundle.groups]
        if _meets(probe.measure(lower(lowered), f"all but {num_kept}"), target):
            return order[:num_kept]
        at_least = num_kept + 1


def _first_guess(order: Sequence[Bundle], target: Target) -> int:
    """Bundles to keep so that the squares of the others' errors sum to the target's."""
    for num_kept in range(1, len(order)):
        rest = [bundle.effect for bundle in order[num_kept:]]
        mean = math.sqrt(sum(report.mean_rel**2 for report in rest))
        p99 = math.sqrt(sum(report.p99_rel**2 for report in rest))
        if mean <= target.mean_rel and p99 <= target.p99_rel:
            return num_kept
    return len(order)


def _meets(report: ParityReport, target: Target) -> bool:
    return report.mean_rel <= target.mean_rel and report.p99_rel <= target.p99_rel
