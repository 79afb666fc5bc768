"""Terminal output with control characters escaped, for texts from manifests, files and libraries."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_LAYOUT = "\n\t"
_COMMANDS = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (e.g. bidi), surrogates, line and paragraph separators


def printable(text: str) -> str:
    r"""Escape control characters, e.g. to ``\x1b``, except tabs and newlines."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in _LAYOUT or not _is_command(one) else _escaped(one) for one in text)


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line to standard output or ``file`` and flush."""
    print(printable(str(text)), file=sys.stdout if file is None else file, flush=True)


def console(*, stderr: bool = False) -> Console:
    """Rich console on standard output or standard error that applies :func:`printable` to all text."""
    from rich.console import Console
    from rich.text import Text

    class PrintableConsole(Console):
        def render_str(self, text: str, **options: object) -> Text:
            return super().render_str(printable(text), **options)  # type: ignore[arg-type]

    return PrintableConsole(stderr=stderr)


def _is_command(character: str) -> bool:
    return unicodedata.category(character) in _COMMANDS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
