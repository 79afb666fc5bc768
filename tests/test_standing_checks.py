"""The standing checks: five of them, each with tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_each_of_the_five_has_its_tests(standing_checks: dict[str, tuple[str, ...]]) -> None:
    assert list(standing_checks) == ["publish", "manifests", "live_file", "processes", "inputs"]
    for places in standing_checks.values():
        for place in places:
            name, _, test = place.partition("::")
            assert re.search(rf"^def {test or 'test_'}", (TESTS / name).read_text(encoding="utf-8"), re.MULTILINE), (
                place
            )


def test_one_target_runs_them() -> None:
    makefile = (TESTS.parent / "Makefile").read_text(encoding="utf-8")
    assert "pytest -m standing\n" in makefile
