"""README and docs: commands, examples, links and figures are those of the code.

A fenced block is ``bash``, ``python`` or ``cpp`` where a reader would run it, and ``text`` or ``json`` otherwise. Bash
blocks of a page run in order in one folder, Python blocks run, C++ blocks compile. A comment before a block says
otherwise: ``<!-- not run: REASON -->``, or ``<!-- needs FEATURE -->`` with a feature of ``FEATURES``.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mvde
from mvde import cli
from mvde.artifact import GraphArtifact
from mvde.cli.verbs import Verb

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PHOTOS = ROOT / "mvde/assets/photos"

FENCE = re.compile(r"^(?:<!-- (?P<note>.+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    note: str
    text: str

    @property
    def runs(self) -> bool:
        return not self.note.startswith("not run: ")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, language: str = "") -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, match.start("text")), match["language"], match["note"] or "", match["text"])
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if language in ("", block.language)]


def blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page, language)]


def spans(page: Path) -> list[str]:
    """Texts in single backticks, outside of the blocks, on one line each."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(match.split()) for match in CODE_SPAN.findall(text)]


def lines_of_commands() -> Iterator[tuple[str, list[str]]]:
    """Where, and the words of every command line in blocks and in spans."""
    for block in blocks("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in re.split(r"\s\|\s", line):
                if words := shlex.split(command, comments=True):
                    yield str(block), words
    for page in PAGES:
        for span in spans(page):
            if re.match(r"(mvde|python|accelerate|make) ", span) or span == "mvde":
                yield str(page.relative_to(ROOT)), span.split()


def has_renderer() -> bool:
    from mvde.errors import BackendError

    if find_spec("moderngl") is None:
        return False
    from mvde.datasets.synth.renderer import create_context

    try:
        create_context().release()
    except BackendError:
        return False
    return True


FEATURES: dict[str, Callable[[], bool]] = {
    "renderer": has_renderer,
    "tensorrt_rtx": lambda: find_spec("tensorrt_rtx") is not None,
}


def verbs() -> dict[str, Any]:
    """Every verb by its words, such as ``"data synth"``; the command line itself is ``""``."""
    found: dict[str, Any] = {}

    def add(command: Any, name: str) -> None:
        found[name] = command = command.load() if isinstance(command, Verb) else command
        for verb, child in getattr(command, "commands", {}).items():
            add(child, f"{name} {verb}".strip())

    add(cli.command_line(), "")
    return found


def options_of(command: Any) -> set[str]:
    return {"--help", "--debug", *(name for parameter in command.params for name in parameter.opts)}


VERBS = verbs()


def test_every_block_says_what_it_is() -> None:
    wrong = []
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks_of(page)), f"a fence of {page.name}"
        for block in blocks_of(page):
            needs = block.note.removeprefix("needs ")
            if block.language not in {"bash", "python", "cpp", "text", "json", "yaml"}:
                wrong.append(f"{block} is {block.language}")
            elif block.note and block.runs and needs not in FEATURES:
                wrong.append(f"{block}: no feature {needs!r}")
    assert wrong == []


def test_every_command_is_one_of_the_command_line() -> None:
    wrong, num_checked = [], 0
    for where, words in lines_of_commands():
        if "mvde" not in words or words[0] in {"pip", "cmake"}:
            continue
        words = words[words.index("mvde") + 1 :]
        name, rest = "", list(words)
        while rest and f"{name} {rest[0]}".strip() in VERBS:
            name = f"{name} {rest.pop(0)}".strip()
        if rest and not name and not rest[0].startswith("-") and rest[0] not in {"VERB", "…"}:
            wrong.append(f"{where}: no verb {rest[0]!r}")
            continue
        known = options_of(VERBS[name]) if rest[:1] != ["VERB"] else {"--help"}
        given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
        wrong += [f"{where}: mvde {name} has no {option}" for option in given if option not in known]
        num_checked += 1
    assert wrong == []
    assert num_checked > 60


def test_every_option_in_the_text_exists() -> None:
    known = set.union(*(options_of(command) for command in VERBS.values()))
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("*.py")))
    wrong = [
        f"{page.relative_to(ROOT)}: {span}"
        for page in PAGES
        for span in spans(page)
        if span.startswith("--") and span.split()[0] not in known and f'"{span.split()[0]}"' not in scripts
    ]
    assert wrong == []


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {words[1] for _, words in lines_of_commands() if words[0] == "make"}
    assert {"demo", "test", "docs"} <= asked
    assert asked <= targets


def test_every_script_and_its_options_exist() -> None:
    wrong = []
    for where, words in lines_of_commands():
        if words[0] == "python" and words[1].endswith(".py"):
            script = ROOT / words[1]
            source = script.read_text(encoding="utf-8") if script.is_file() else ""
            wrong += [f"{where}: {words[1]}"] if not source else []
            wrong += [f"{where}: {words[1]} {word}" for word in words if word[:2] == "--" and f'"{word}"' not in source]
    assert wrong == []


def test_every_path_in_the_text_exists() -> None:
    pattern = re.compile(r"(mvde|cpp|benchmarks|tests|configs|docs|bin)/[\w./*-]*")
    generated = {"mvde/lib"}
    missing = [
        f"{page.relative_to(ROOT)}: {span}"
        for page in PAGES
        for span in spans(page)
        if pattern.fullmatch(span) and span not in generated and not list(ROOT.glob(span.rstrip("/")))
    ]
    assert missing == []


def test_every_link_of_the_repository_leads_somewhere() -> None:
    """MkDocs checks those within docs, with their anchors; generated pages are known to it alone."""
    generated = {"changelog.md", "model-card.md", "reference/verbs.md"}
    missing = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "mvde/assets/MODEL_CARD.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and target not in generated and not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_examples_compile_and_their_imports_resolve(block: Block) -> None:
    for module, name in imported_names(ast.parse(block.text, filename=str(block))):
        assert not block.runs or find_spec(module.partition(".")[0]) is not None, module
        if module.startswith("mvde"):
            assert not name or hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_python_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_graph: Callable[..., GraphArtifact]
) -> None:
    pytest.importorskip("openvino")
    (block,) = (block for block in blocks_of(ROOT / "README.md", "python") if block.runs)
    monkeypatch.chdir(tmp_path)
    write_graph(tmp_path / "export")
    shutil.copy(PHOTOS / "coffee.jpg", "photo.jpg")
    assert cli.execute(["build", "--engine", "openvino:fp32"]) == 0
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    assert names["result"].depth.shape == names["image"].shape[:2]
    assert names["stats"].shape == (1, (224 // 16) ** 2, 3)


@pytest.mark.slow
def test_the_python_example_of_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(ROOT / "docs/training.md", "python"):
        names: dict[str, Any] = {}
        exec(compile(block.text, str(block), "exec"), names)
        assert names["depth_m"].shape == (1, 64, 64)
        assert names["stats"].shape == (1, 16, 3)


# What the C++ examples take for granted, as cpp/examples/robot_loop.cpp has it.
CPP_AROUND = """
#include <mvde/mvde.hpp>
#include <string>
#include <vector>
int report(const std::string &message);
bool read_frame(std::vector<uint8_t> &rgb);
void publish(const std::vector<float> &depth_m, const std::vector<float> &stats);
struct Given {
    mvde::SessionOptions options;
    std::vector<uint8_t> rgb;
    std::vector<float> depth, stats;
    mvde_frame frame;
    int64_t budget_ms;
};
"""
CPP_EXAMPLE = """
int example_{index}(Given &given) {{
    [[maybe_unused]] auto &[options, rgb, depth, stats, frame, budget_ms] = given;
    {{
#line {line} "{page}"
{body}
    }}
    return 0;
}}
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_cpp_examples_compile_against_the_headers(tmp_path: Path) -> None:
    found = blocks("cpp")
    assert {block.page.name for block in found} == {"README.md", "cpp.md", "robot.md", "video.md"}
    examples = [
        CPP_EXAMPLE.format(index=index, line=block.line + 1, page=block.page, body=textwrap.indent(block.text, " " * 8))
        for index, block in enumerate(found)
    ]
    source = tmp_path / "examples.cpp"
    source.write_text(CPP_AROUND + "".join(examples), encoding="utf-8")
    command = ["c++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", f"-I{ROOT}/cpp/include", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_imports_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "docs/scripts/import_graph.py"))
    drawn = script["draw"](*script["read_table"]())
    assert script["PICTURE"].read_text(encoding="utf-8") == drawn, "run python docs/scripts/import_graph.py"


def test_every_part_has_its_line_in_the_architecture() -> None:
    allowed = runpy.run_path(str(ROOT / "tests/test_imports.py"))["ALLOWED"]
    named = set(re.findall(r"`mvde\.(\w+)`", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")))
    assert set(allowed) - named == set()


def test_every_public_name_is_on_the_page_of_the_interface() -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    # Names with a home of their own; errors are there as a whole.
    missing = [name for name in mvde.__all__ if name not in {"__version__", "MvdeError"} and f".{name}\n" not in page]
    assert missing == []
    assert "::: mvde.errors\n" in page


def test_the_readme_is_short_and_warns_of_the_model_first() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any("no robot should act on its depth" in line for line in lines[:16])


def test_figures_of_the_shipped_model_are_those_of_its_card() -> None:
    card = (ROOT / "mvde/assets/MODEL_CARD.md").read_text(encoding="utf-8")
    native = re.search(r"^\| \*\*192\*\* \|.*\| none \| ([\d.]+) \| .*?\| .*?\| ([\d.]+) \|", card, re.MULTILINE)
    at_896 = re.search(r"^\| 896 \|.*\| none \| [\d.]+ \| .*?\| .*?\| ([\d.]+) \|", card, re.MULTILINE)
    assert native is not None
    assert at_896 is not None
    for page in (ROOT / "README.md", ROOT / "docs/index.md"):
        text = " ".join(page.read_text(encoding="utf-8").replace("\n> ", " ").split())
        assert f"AbsRel {native[1]} and δ1 {float(native[2]):.2f} at its native 192×192" in text
        assert f"δ1 {float(at_896[1]):.2f} at 896×896" in text


def test_what_has_not_run_on_a_gpu_is_said_in_one_place() -> None:
    elsewhere = [
        page.name for page in PAGES if re.search(r"not yet run on a GPU", page.read_text(encoding="utf-8"), re.I)
    ]
    assert elsewhere == ["support.md"]


# Settings of the documentation that would take minutes or hours, and what the test takes instead.
SMALLER = (
    (r"--count \d+", "--count 8"),
    (r"--size \d+x\d+", "--size 96x96"),
    (r"--duration \d+", "--duration 0.2"),
    (r"--max-frames \d+", "--max-frames 4"),
    (r"--clip-frames \d+", "--clip-frames 4"),
    (
        r"(mvde train .*--output_dir \S+)",
        r"\1 'train.stages=[{steps: 2, res: [64], batch_size: 2}]' train.num_workers=0 train.warmup_steps=0 "
        r"train.decay_steps=0",
    ),
)


# Pages that take more than half a minute, and the index, whose commands are the README's.
LONG = {"benchmark", "bulk", "index", "training", "tensorrt", "precision", "live", "video", "vlm"}
COMMANDS = [pytest.param(page, id=page.stem, marks=pytest.mark.extended if page.stem in LONG else pytest.mark.slow)
            for page in PAGES if blocks_of(page, "bash")]  # fmt: skip


@pytest.mark.parametrize("page", COMMANDS)
def test_commands_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    there = {feature: has() for feature, has in FEATURES.items()}
    found = [block for block in blocks_of(page, "bash") if block.runs and there.get(block.note[6:], True)]
    if not found:
        pytest.skip("nothing of this page runs here")
    script = "\n".join(block.text for block in found)
    for pattern, smaller in SMALLER:
        script = re.sub(pattern, smaller, script)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "photos").symlink_to(PHOTOS)
    shutil.copy(PHOTOS / "coffee.jpg", tmp_path / "photo.jpg")
    shim = tmp_path / "bin/mvde"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mvde "$@"\n')
    shim.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "120",
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
