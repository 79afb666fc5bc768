"""Progress reports of exports and lowerings."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Callback that receives a short status message."""


def no_progress(message: str) -> None:
    """Ignore the message."""
