"""Hooks of MkDocs: pages that are generated from the source, and docstrings as Markdown.

The page of verbs comes from the command line's own ``--help``; the changelog and the model card are the files that
stand elsewhere in the repository. None of them is a copy that could differ.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
HELP_WIDTH = 80


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    contents = {
        "reference/verbs.md": verbs_page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "model-card.md": (ROOT / "mvde/assets/MODEL_CARD.md").read_text(encoding="utf-8"),
    }
    for path, text in contents.items():
        files.append(File.generated(config, path, content=text))
    return files


def verbs_page() -> str:
    """Markdown with the help of every verb, as the terminal shows it."""
    lines = ["# Verbs", "", "What `mvde VERB --help` prints.", ""]
    for name, text in verbs():
        lines += [f"## {name}", "", "```text", text, "```", ""]
    return "\n".join(lines)


def verbs() -> Iterator[tuple[str, str]]:
    """Name and help of the command line itself and of each of its verbs."""
    sys.path.insert(0, str(ROOT))
    from mvde.cli import command_line

    yield from _help_of(command_line(), "mvde", None)


def _help_of(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    from mvde.cli.verbs import Verb

    if isinstance(command, Verb):
        command = command.load()
    context = command.context_class(command, info_name=name.split()[-1], parent=parent, terminal_width=HELP_WIDTH)
    yield name, command.get_help(context).rstrip()
    for verb, child in getattr(command, "commands", {}).items():
        yield from _help_of(child, f"{name} {verb}", context)


class PlainRoles(Extension):
    """Docstrings with ``:class:`X``` as `X`: roles are Sphinx's, and Markdown would show them."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
