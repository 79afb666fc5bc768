"""Docstrings and C++ header comments open with what is done or returned."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = [path for part in ("mvde", "benchmarks", "bin", "tests") for path in sorted((ROOT / part).rglob("*.py"))]
SUFFIXES = {".h", ".hpp", ".cuh"}
HEADERS = [path for part in ("cpp", "tests") for path in sorted((ROOT / part).rglob("*.*")) if path.suffix in SUFFIXES]

VAGUE = re.compile(r"\s*nothing\b", re.IGNORECASE)  # says only that the function returns no value

LINE_COMMENT = re.compile(r"//[/!]*<?(.*)")
BLOCK_COMMENT = re.compile(r"/\*[*!]*<?[\s*]*(.*)")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes included."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and first line of every comment; a run of whole-line ``//`` comments counts as one."""
    inside = False
    for number, line in enumerate(source.splitlines(), 1):
        whole_line = line.lstrip().startswith("//")
        if (found := LINE_COMMENT.search(line)) and not (inside and whole_line):
            yield number, found[1]
        inside = whole_line
    for found in BLOCK_COMMENT.finditer(source):
        yield source.count("\n", 0, found.start()) + 1, found[1]


def vague(path: Path, texts: Iterator[tuple[int, str]]) -> list[str]:
    """``FILE:LINE: TEXT`` of the texts that open with the word."""
    return [f"{path}:{line}: {text.strip().splitlines()[0]}" for line, text in texts if VAGUE.match(text)]


def test_no_docstring_begins_with_nothing() -> None:
    assert PYTHON
    assert [found for path in PYTHON for found in vague(path, docstrings(path.read_text(encoding="utf-8")))] == []


def test_no_header_comment_begins_with_nothing() -> None:
    assert HEADERS
    assert [found for path in HEADERS for found in vague(path, comments(path.read_text(encoding="utf-8")))] == []


def test_every_kind_of_text_is_found() -> None:
    python = 'def f():\n    """Nothing; frees it."""\n\nclass A:\n    b: int = 0\n    """\n    Nothing.\n    """\n'
    assert vague(Path("a.py"), docstrings(python)) == ["a.py:2: Nothing; frees it.", "a.py:6: Nothing."]
    header = "// Nothing.\n// More.\nint a;  //!< Nothing\n/** Nothing. */\n/*\n * Nothing.\n */\n// It.\n// Nothing.\n"
    assert [found[:6] for found in vague(Path("a.h"), comments(header))] == ["a.h:1:", "a.h:3:", "a.h:4:", "a.h:5:"]
