"""Import boundaries: heavy libraries loaded on demand only, and the allowed dependencies between parts."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mvde

PACKAGE = Path(mvde.__file__).parent

HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "openvino", "omegaconf", "tensorrt", "tensorrt_rtx")
GROUND = {
    "errors",
    "value_checks",
    "child_process",
    "precision",
    "config",
    "resolution",
    "distortion",
    "calibration_yaml",
    "camera",
    "calibration",
    "image",
    "schema",
    "contract",
    "description",
    "records",
    "manifest",
    "files",
    "publish",
    "artifact",
    "parity",
    "alignment",
    "protocols",
    "metrics",
    "steadiness",
    "native",
    "stats",
    "postprocess",
    "assets",
    "vector_math",
    "resampling",
}
ROBOT = GROUND | {"engines", "runtime", "robot", "bulk", "bench", "cli", "cuda"}

# Part → parts it may import, besides itself. The command line may import every part.
ALLOWED = {
    "errors": set(),
    "precision": {"errors"},
    "child_process": set(),
    "value_checks": {"errors"},
    "omegaconf_errors": {"errors"},
    "config": {"errors", "omegaconf_errors", "resolution", "value_checks"},
    "resolution": {"errors"},
    "distortion": {"errors"},
    "calibration_yaml": {"errors", "distortion"},
    "camera": {"errors", "contract", "calibration_yaml", "distortion"},
    "calibration": {"errors", "contract", "camera", "schema", "manifest", "files", "alignment"},
    "image": {"errors", "assets"},
    "schema": {"errors"},
    "contract": {"schema"},
    "description": {"errors", "contract", "resolution"},
    "records": {"precision"},
    "manifest": {"errors", "contract", "records", "schema", "stats"},
    "files": {"errors", "manifest"},
    "publish": {"errors", "files", "manifest"},
    "artifact": {"errors", "files", "manifest", "publish"},
    "alignment": {"errors", "contract"},
    "protocols": {"errors"},
    "metrics": {"errors", "contract", "alignment", "protocols"},
    "steadiness": {"errors"},
    "resampling": {"errors", "contract"},
    "native": {"errors", "resampling"},
    "vector_math": set(),
    "stats": {"errors", "native", "vector_math"},
    "postprocess": {"native", "stats"},
    "cuda": {"errors", "resolution", "files", "stats", "native", "resampling"},
    "parity": {"errors", "contract", "records", "stats"},
    "assets": {"errors"},
    "engines": {
        "errors",
        "contract",
        "precision",
        "config",
        "records",
        "manifest",
        "files",
        "publish",
        "artifact",
        "parity",
        "native",
        "stats",
        "cuda",
    },
    "runtime": {
        "errors",
        "distortion",
        "camera",
        "calibration",
        "resampling",
        "contract",
        "precision",
        "files",
        "config",
        "image",
        "manifest",
        "artifact",
        "stats",
        "native",
        "postprocess",
        "cuda",
        "engines",
    },
    "bench": {
        "errors",
        "precision",
        "files",
        "config",
        "image",
        "manifest",
        "artifact",
        "stats",
        "native",
        "engines",
        "runtime",
    },
    "robot": {
        "errors",
        "contract",
        "camera",
        "distortion",
        "calibration_yaml",
        "image",
        "manifest",
        "files",
        "publish",
        "stats",
        "native",
        "runtime",
    },
    "bulk": {
        "errors",
        "child_process",
        "camera",
        "calibration",
        "image",
        "schema",
        "manifest",
        "files",
        "artifact",
        "engines",
        "runtime",
    },
    "backbones": {"errors", "config", "resolution"},
    "heads": {"errors", "config"},
    "datasets": {"errors", "config", "camera", "image", "files"},
    "losses": {"errors", "config"},
    "checkpoint": {"errors", "config", "files", "manifest", "assets"},
    "image_model": {"errors", "description", "resolution", "stats", "vector_math"},
    "families": {"errors", "contract", "description", "files", "backbones", "image_model"},
    "model": {
        "errors",
        "config",
        "contract",
        "description",
        "resolution",
        "backbones",
        "heads",
        "checkpoint",
        "image_model",
        "families",
    },
    "export": {
        "errors",
        "resampling",
        "contract",
        "description",
        "child_process",
        "precision",
        "config",
        "resolution",
        "camera",
        "image",
        "records",
        "manifest",
        "files",
        "publish",
        "artifact",
        "parity",
        "alignment",
        "metrics",
        "protocols",
        "stats",
        "assets",
        "model",
        "checkpoint",
        "engines",
        "runtime",
    },
    "pipelines": GROUND
    | {"model", "checkpoint", "datasets", "losses", "backbones", "heads", "runtime", "engines", "vlm"},
    "vlm": GROUND
    | {
        "model",
        "image_model",
        "checkpoint",
        "families",
        "datasets",
        "backbones",
        "heads",
        "runtime",
        "engines",
        "bulk",
    },
}


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _part(module: str) -> str:
    """Part of a module: ``"runtime"`` for ``"mvde.runtime.depth"``, ``""`` for the package itself."""
    return module.split(".")[1] if "." in module else ""


def _imported(tree: ast.AST) -> Iterator[str]:
    """Modules of mvde imported by a file, also inside functions; TYPE_CHECKING imports are excluded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "mvde":
            yield from (f"mvde.{alias.name}" for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mvde."):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("mvde."))
        yield from _imported(node)


def test_imports_go_one_way_only() -> None:
    wrong = []
    for name, path in _modules():
        part = _part(name)
        if part in {"", "cli", "__main__"}:
            continue
        assert part in ALLOWED, f"{name} is a new part: list its allowed imports in this test"
        targets = {_part(target) for target in _imported(ast.parse(path.read_text(encoding="utf-8")))}
        wrong += [f"{name} imports mvde.{target}" for target in sorted(targets - ALLOWED[part] - {part})]
    assert wrong == []


def test_the_graph_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {part for part, needs in ALLOWED.items() if part not in done and needs <= done}
        assert ready, f"a cycle among {sorted(set(ALLOWED) - done)}"
        done |= ready


def test_every_robot_side_module_imports_without_the_heavy_libraries() -> None:
    names = [name for name, _ in _modules() if _part(name) in ROBOT and not name.endswith("__main__")]
    assert len(names) > 20
    script = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_mvde_and_asking_for_help_load_nothing_heavy() -> None:
    light = (*HEAVY, "numpy", "PIL", "rich")
    for code in ("import mvde", "from mvde.cli import verbs; verbs.application(verbs.VERBS)"):
        script = f"{code}\nimport sys\nprint([name for name in {light!r} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.strip() == "[]", code


def test_choices_of_the_command_line_load_nothing_heavy() -> None:
    modules = (
        "mvde.alignment",
        "mvde.protocols",
        "mvde.datasets.formats",
        "mvde.datasets.splits",
        "mvde.runtime.placement",
    )
    light = (*HEAVY, "numpy", "PIL")
    script = f"import sys, {', '.join(modules)}\nprint([name for name in {light!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
