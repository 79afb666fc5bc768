"""Files that verbs write beside what they print: complete or not there at all."""

from __future__ import annotations

from pathlib import Path

STDOUT = "-"
"""In the place of a file's name: standard output."""


def write_json(target: str, text: str) -> None:
    """Write JSON to the file of that name, or print it for :data:`STDOUT`."""
    if target == STDOUT:
        print(text.rstrip("\n"))
    else:
        write_text(Path(target), text.rstrip("\n") + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file. Raises :class:`OutputError` where that fails; what stood there before is untouched then."""
    from mvde.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
