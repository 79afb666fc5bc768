"""Validation of library options stored in an engine's manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mvde.errors import IncompatibleEngineError


def check_stored(options: Mapping[str, Any], known: Mapping[str, str], where: str) -> None:
    """Raise :class:`IncompatibleEngineError` unless all options in a manifest are ones that mvde sets.

    ``known`` maps each name to a regular expression for its value as text. Some library options write files, so an
    untrusted manifest must not choose them.
    """
    for name, value in options.items():
        if name not in known:
            raise IncompatibleEngineError(
                f"{where}: its manifest states the option {name!r}, which mvde does not set; it sets "
                f"{', '.join(sorted(known))}: build the engine again with `mvde build`"
            )
        if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(known[name], str(value)):
            raise IncompatibleEngineError(
                f"{where}: its manifest states the option {name} as {value!r}, but mvde sets what matches "
                f"{known[name]!r}: build the engine again with `mvde build`"
            )
