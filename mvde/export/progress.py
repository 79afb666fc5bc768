"""Telling a caller what an export or a lowering is at."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Told what is being done, in a few words."""


def no_progress(message: str) -> None:
    """Tell nobody."""
