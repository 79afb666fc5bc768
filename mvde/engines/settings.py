"""What ``--set NAME=VALUE`` gives to a backend: the names that it takes, and how their texts are read.

Light to import: the command line lists every backend's settings in its help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvde.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """A name that a backend takes in ``--set NAME=VALUE``, and what it does, in a few words."""

    name: str
    help: str


def check_names(backend: str, given: Mapping[str, str], known: Sequence[Setting]) -> None:
    """Raise :class:`UsageError` for a name that the backend does not take, listing those that it does."""
    unknown = [name for name in given if name not in {setting.name for setting in known}]
    if unknown:
        listed = "; ".join(f"{setting.name} ({setting.help})" for setting in known)
        raise UsageError(
            f"--set {unknown[0]}={given[unknown[0]]} is not for {backend}, which takes {listed or 'no settings'}"
        )


def whole_number(name: str, text: str, least: int, most: int | None = None) -> int:
    """The number that a setting's text gives. Raises :class:`UsageError` with the range for another text."""
    expected = f"{least} to {most}" if most is not None else f"at least {least}"
    try:
        number = int(text)
    except ValueError as error:
        raise UsageError(f"--set {name}={text}: expected a whole number, {expected}") from error
    if number < least or (most is not None and number > most):
        raise UsageError(f"--set {name}={text}: expected {expected}")
    return number


def yes_or_no(name: str, text: str) -> bool:
    """Whether a setting's text is ``yes``. Raises :class:`UsageError` for what is neither ``yes`` nor ``no``."""
    return one_of(name, text, ("yes", "no")) == "yes"


def one_of(name: str, text: str, choices: Sequence[str]) -> str:
    """The setting's text, which is one of the choices. Raises :class:`UsageError` listing them for another one."""
    if text not in choices:
        raise UsageError(f"--set {name}={text}: expected {' or '.join(choices)}")
    return text
