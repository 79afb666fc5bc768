"""constraints.txt: a version for everything that `make` installs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = ("export", "train", "data", "video", "vlm", "ros", "live", "rerun", "bulk", "ray")

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_package_that_make_installs_has_a_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_name(line) for line in lines if re.match(r"[\w.-]+==\d", line)}
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*read["project"]["dependencies"]]
    for extra in EXTRAS:
        asked += read["project"]["optional-dependencies"][extra]
    asked += read["project"]["optional-dependencies"]["model"]
    for group in read["dependency-groups"].values():
        asked += group
    missing = {_name(requirement) for requirement in asked} - pinned - {"mvde"}
    assert not missing, "run `make constraints`"


def test_make_installs_and_pins_the_same_extras_and_groups() -> None:
    makefile = (ROOT / "Makefile").read_text()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    recipe = makefile.partition("\nconstraints:")[2].partition("\n\n")[0]
    assert f".[{','.join(EXTRAS)}]" in makefile
    assert re.findall(r"--extra (\w+)", recipe) == list(EXTRAS)
    assert set(re.findall(r"--group (\w+)", recipe)) == set(groups)
