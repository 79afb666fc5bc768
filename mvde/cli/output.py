"""Output files of verbs, written atomically."""

from __future__ import annotations

from pathlib import Path

STDOUT = "-"
"""File name that stands for standard output."""


def write_json(target: str, text: str) -> None:
    """Write JSON to the file ``target``, or print it for :data:`STDOUT`."""
    if target == STDOUT:
        print(text.rstrip("\n"))
    else:
        write_text(Path(target), text.rstrip("\n") + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; raises :class:`OutputError` on failure."""
    from mvde.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
