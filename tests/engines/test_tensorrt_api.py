"""Names of TensorRT used by mvde, checked against the bindings of several versions and the installed one."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mvde.engines.tensorrt.api as api
from mvde.engines.tensorrt.api import LIBRARIES, USED, USED_BY_RTX, version_of

# Written by record_tensorrt_names.py from NVIDIA's wheels.
RECORDED = json.loads(Path(__file__).with_name("tensorrt_names.json").read_text(encoding="utf-8"))

# Names that the package only uses on mvde's own classes.
SHARED = {"builder", "engine", "file", "logger", "num_aux_streams", "precision", "update"}

READ = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
print(json.dumps({name: dir(getattr(module, name)) for name in sys.argv[2:] if hasattr(module, name)}))
"""


def _missing(wanted: dict[str, tuple[str, ...]], there: dict[str, list[str]]) -> list[str]:
    return [f"{kind}.{name}" for kind, names in wanted.items() for name in names if name not in there.get(kind, ())]


@pytest.mark.parametrize("version", sorted(RECORDED))
def test_every_name_is_in_the_bindings_of_tensorrt(version: str) -> None:
    assert _missing(USED, RECORDED[version]) == []


def test_the_oldest_and_the_newest_major_are_recorded() -> None:
    versions = {version_of(version)[:2] for version in RECORDED}
    assert (10, 3) in versions
    assert {major for major, _ in versions} == {10, 11}


@pytest.mark.parametrize("backend", LIBRARIES)
def test_every_name_is_in_the_library_that_is_installed(backend: str) -> None:
    module = LIBRARIES[backend].module
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    wanted = {kind: (*USED.get(kind, ()), *USED_BY_RTX.get(kind, ())) for kind in {*USED, *USED_BY_RTX}}
    command = [sys.executable, "-c", READ, module, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert _missing(wanted if backend == "tensorrt-rtx" else USED, json.loads(done.stdout)) == []


def _attributes() -> list[ast.Attribute]:
    """Attribute accesses in the package, except on mvde's own classes."""
    files = Path(api.__file__).parent.glob("*.py")
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    own = {"Precision", "TensorRtOptions"}
    return [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in own]


def test_the_list_has_every_name_that_the_package_uses() -> None:
    """A missing name would go unchecked."""
    listed = {name for names in (*USED.values(), *USED_BY_RTX.values()) for name in names}
    known = {name for classes in RECORDED.values() for names in classes.values() for name in names}
    assert sorted({node.attr for node in _attributes()} & known - listed - SHARED) == []


def test_the_list_has_every_class_that_the_package_takes_from_a_library() -> None:
    of_library = {
        node.attr for node in _attributes() if ast.unparse(node.value) in {"module", "api.module", "self.module"}
    }
    assert sorted(of_library - {*USED, *USED_BY_RTX} - {"__version__"}) == []


@pytest.mark.parametrize(
    ("text", "numbers"), [("10.3.0", (10, 3, 0)), ("10.7.0.post1", (10, 7, 0)), ("1.7.1.116", (1, 7, 1, 116))]
)
def test_versions_are_compared_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_of(text) == numbers
    assert version_of("10.14.1") > version_of("10.9.0")
