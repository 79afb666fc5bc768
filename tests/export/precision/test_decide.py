"""Selection of groups to keep, with known effects that add like independent errors."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pytest

pytest.importorskip("onnx_ir")

from mvde.export.precision.decide import MAX_ALONE, decide
from mvde.export.precision.groups import Group
from mvde.export.precision.targets import Target
from mvde.records import ParityReport

TARGET = Target(mean_rel=1e-3, p99_rel=1e-2)


class Arithmetic:
    """Fake probe: "graphs" are lists of groups with known errors, whose squares add."""

    def __init__(self, errors: dict[str, float]) -> None:
        self.errors = errors
        self.measured: list[list[str]] = []

    def measure(self, groups: Sequence[Group], what: str) -> ParityReport:
        names = [group.name for group in groups]
        self.measured.append(names)
        mean = math.sqrt(sum(self.errors[name] ** 2 for name in names))
        return ParityReport(10 * mean, mean, 3 * mean, mean, 1)


def _decide(errors: dict[str, float], num_branches: int = 0, must_stay: Collection[str] = ()) -> tuple:
    probe = Arithmetic(errors)
    groups = [Group(name, (name,), 1, index < num_branches) for index, name in enumerate(errors)]
    return decide(groups, list, probe, TARGET, must_stay), probe  # type: ignore[arg-type]


def test_nothing_is_measured_alone_where_everything_can_be_lowered() -> None:
    decision, probe = _decide({"a": 1e-4, "b": 2e-4, "c": 3e-4})
    assert [group.name for group in decision.lowered] == ["a", "b", "c"]
    assert probe.measured == [["a", "b", "c"]]


def test_groups_with_large_effects_are_kept_with_what_they_measured() -> None:
    decision, _ = _decide({"a": 1e-4, "b": 5e-3, "c": 2e-4, "d": 2e-3})
    assert [group.name for group in decision.kept] == ["b", "d"]
    assert decision.reasons["b"].effect.mean_rel == pytest.approx(5e-3)


def test_two_bad_branches_of_many_are_found_by_halving() -> None:
    errors = {f"branch{index}": 1e-5 for index in range(48)} | {"tail": 1e-5}
    errors["branch3"] = errors["branch40"] = 2e-3
    decision, probe = _decide(errors, num_branches=48)
    assert [group.name for group in decision.kept] == ["branch3", "branch40"]
    assert len(probe.measured) < 30


def test_a_tower_that_is_bad_everywhere_costs_a_bounded_number_of_measurements() -> None:
    errors = {f"branch{index}": 1e-2 for index in range(200)} | {"tail": 1e-5}
    decision, probe = _decide(errors, num_branches=200)
    assert [group.name for group in decision.lowered] == ["tail"]
    assert len(probe.measured) <= MAX_ALONE + 2
    assert len(decision.reasons["branch7"].groups) > 1


def test_groups_that_must_stay_do_so_and_are_never_lowered() -> None:
    decision, probe = _decide({"a": 1e-5, "b": 1e-5}, must_stay={"a"})
    assert [group.name for group in decision.kept] == ["a"]
    assert probe.measured == [["b"]]


def test_the_worst_of_what_is_lowered_are_named_without_those_that_stay() -> None:
    decision, _ = _decide({f"branch{index}": index * 1e-5 for index in range(8)} | {"tail": 1.0}, num_branches=8)
    assert [group.name for group in decision.kept] == ["tail"]
    assert [bundle.groups[0].name for bundle in decision.worst(2)] == ["branch7", "branch6"]
