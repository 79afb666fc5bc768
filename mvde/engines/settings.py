"""Backend settings from ``--set NAME=VALUE``: names and value parsers.

Cheap to import: the command line lists every backend's settings in its help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvde.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """Name and short help text of a backend setting for ``--set NAME=VALUE``."""

    name: str
    help: str


def check_names(backend: str, given: Mapping[str, str], known: Sequence[Setting]) -> None:
    """Raise :class:`UsageError` for a name unknown to the backend, listing the known ones."""
    unknown = [name for name in given if name not in {setting.name for setting in known}]
    if unknown:
        listed = "; ".join(f"{setting.name} ({setting.help})" for setting in known)
        raise UsageError(
            f"--set {unknown[0]}={given[unknown[0]]} is not for {backend}, which takes {listed or 'no settings'}"
        )


def whole_number(name: str, text: str, least: int, most: int | None = None) -> int:
    """Parse an integer in [``least``, ``most``]. Raises :class:`UsageError` stating the range."""
    expected = f"{least} to {most}" if most is not None else f"at least {least}"
    try:
        number = int(text)
    except ValueError as error:
        raise UsageError(f"--set {name}={text}: expected a whole number, {expected}") from error
    if number < least or (most is not None and number > most):
        raise UsageError(f"--set {name}={text}: expected {expected}")
    return number


def yes_or_no(name: str, text: str) -> bool:
    """Parse ``yes`` or ``no``. Raises :class:`UsageError` for anything else."""
    return one_of(name, text, ("yes", "no")) == "yes"


def one_of(name: str, text: str, choices: Sequence[str]) -> str:
    """Return ``text`` if it is one of the choices. Raises :class:`UsageError` listing them otherwise."""
    if text not in choices:
        raise UsageError(f"--set {name}={text}: expected {' or '.join(choices)}")
    return text
