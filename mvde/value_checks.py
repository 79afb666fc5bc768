"""Validation of configuration values; errors name the invalid value."""

from __future__ import annotations

import math
from typing import Any

from mvde.errors import ConfigError


def check_positive(section: Any, *names: str) -> None:
    """Raise :class:`ConfigError` unless all values, or both sides of a size, are finite and > 0.

    ``None`` is not checked.
    """
    for name in names:
        value = getattr(section, name)
        if value is None:
            continue
        sides = value if isinstance(value, tuple) else (value,)
        if not all(0 < side < math.inf for side in sides):
            raise ConfigError(f"{name} must be positive, but got {value}" + _hint(*sides))


def check_not_negative(section: Any, *names: str) -> None:
    """Raise :class:`ConfigError` unless all values are finite and >= 0."""
    for name in names:
        value = getattr(section, name)
        if not 0 <= value < math.inf:
            raise ConfigError(f"{name} must be 0 or more, but got {value}" + _hint(value))


def check_within(section: Any, low: float, high: float, *names: str) -> None:
    """Raise :class:`ConfigError` unless all values are in ``[low, high]``."""
    for name in names:
        value = getattr(section, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} must lie between {low:g} and {high:g}, but got {value}")


def check_share(section: Any, *names: str) -> None:
    """Raise :class:`ConfigError` unless all values are in ``[0, 1)``: at 1 new values would have no weight."""
    for name in names:
        value = getattr(section, name)
        if not 0 <= value < 1:
            raise ConfigError(f"{name} must be 0 or more and below 1, but got {value}")


def check_choice(section: Any, name: str, *allowed: str) -> None:
    """Raise :class:`ConfigError`, listing the choices, unless the value is among them."""
    choice = getattr(section, name)
    if choice not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, but got {choice!r}")


def _hint(*values: float) -> str:
    return "" if all(math.isfinite(value) for value in values) else "; give a finite number"
