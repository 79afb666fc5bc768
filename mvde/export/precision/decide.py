"""Selection of node groups to keep in a higher precision: each is lowered alone and its effect on depth measured."""

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
"""Maps groups to a copy of the fp32 graph in which only those groups are lowered."""

MAX_ALONE = 40
"""Budget of bundle measurements; afterwards bundles are no longer halved and heavy ones are kept whole."""


@dataclass(frozen=True)
class Bundle:
    """Groups, and the effect on depth of lowering only them."""

    groups: tuple[Group, ...]
    effect: ParityReport

    @property
    def size(self) -> float:
        """Sort key: mean relative depth error, infinite if not finite."""
        return self.effect.mean_rel if math.isfinite(self.effect.mean_rel) else math.inf


@dataclass
class Ranking:
    """Bundles of groups, each measured alone once; those that matter are halved down to single groups.

    Most branches of a large tower have no measurable effect and are never measured individually.
    """

    measure_alone: Callable[[Sequence[Group]], ParityReport]
    bundles: list[Bundle]
    num_halvings: int

    @classmethod
    def of(cls, groups: Sequence[Group], measure_alone: Callable[[Sequence[Group]], ParityReport]) -> Ranking:
        """Create a ranking of ``groups`` from their initial bundles."""
        found = [Bundle(members, measure_alone(members)) for members in first_bundles(groups)]
        return cls(measure_alone, found, max(0, MAX_ALONE - len(found)) // 2)

    def ordered(self) -> list[Bundle]:
        """Bundles in order of decreasing effect."""
        return sorted(self.bundles, key=lambda bundle: -bundle.size)

    def halve(self, among: Sequence[Bundle]) -> bool:
        """Halve the first bundle of ``among`` with several groups and measure both; return whether one was found."""
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
        """Return the ``count`` heaviest bundles, halved where possible."""
        while self.halve(self.ordered()[:count]):
            pass
        return self.ordered()[:count]


@dataclass(frozen=True)
class Decision:
    """Lowered groups, kept groups, and the measurements that led to the decision."""

    lowered: tuple[Group, ...]
    kept: tuple[Group, ...]
    ranking: Callable[[], Ranking]
    reasons: dict[str, Bundle] = field(default_factory=dict)

    def worst(self, count: int) -> list[Bundle]:
        """Return the ``count`` lowered bundles with the largest effect, measuring now if needed."""
        return self.ranking().worst(count)


def decide(
    groups: Sequence[Group],
    lower: Lower,
    probe: Probe,
    target: Target,
    must_stay: Collection[str] = (),
    together: ParityReport | None = None,
) -> Decision:
    """Find the largest set of groups, by effect, whose lowering meets ``target`` on the probe's images.

    Groups named in ``must_stay`` are always kept; ``together`` is the joint measurement of all others, if known. Errors
    of bundles add like independent errors, which predicts how many to exclude before the next measurement.
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
    """Smallest set of heaviest bundles to keep so that lowering the others meets ``target``."""
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
    """Number of bundles to keep so that the root sum of squares of the others' errors meets the target."""
    for num_kept in range(1, len(order)):
        rest = [bundle.effect for bundle in order[num_kept:]]
        mean = math.sqrt(sum(report.mean_rel**2 for report in rest))
        p99 = math.sqrt(sum(report.p99_rel**2 for report in rest))
        if mean <= target.mean_rel and p99 <= target.p99_rel:
            return num_kept
    return len(order)


def _meets(report: ParityReport, target: Target) -> bool:
    return report.mean_rel <= target.mean_rel and report.p99_rel <= target.p99_rel
