"""JSON file of engines for ``mvde build --list``; JSON needs no additional package on the robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = ("engine", "name", "res", "batch")


class Entry(NamedTuple):
    """Engine ids and the selection of their graphs; None means unspecified."""

    engines: list[str] | None
    name: str | None
    res: list[str] | None
    batch: int | None


def read_build_list(path: Path) -> list[Entry]:
    """Read the entries of a build list.

    Each entry is an object with ``engine`` (one or several ids) and optional ``name``, ``res`` and ``batch``. Raises
    :class:`ConfigError` naming the invalid entry and key.
    """
    import json

    from mvde.errors import ConfigError

    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f'{path} must be a list of engines, e.g. [{{"engine": "fp16", "res": ["448", "896"]}}]')
    return [_entry(item, f"{path}, entry {number}") for number, item in enumerate(listed, start=1)]


def _entry(item: Any, where: str) -> Entry:
    from mvde.errors import ConfigError

    if not isinstance(item, dict):
        raise ConfigError(f"{where} must be an object with the keys {', '.join(_KEYS)}, but got {item!r}")
    unknown = [key for key in item if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{where} has the unknown key {unknown[0]!r}; known keys: {', '.join(_KEYS)}")
    name = item.get("name")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"{where}: name must be a string, but got {name!r}")
    batch = item.get("batch")
    if batch is not None and (type(batch) is not int or batch < 1):
        raise ConfigError(f"{where}: batch must be an integer >= 1, but got {batch!r}")
    return Entry(_texts(item.get("engine"), f"{where}: engine"), name, _texts(item.get("res"), f"{where}: res"), batch)


def _texts(value: Any, where: str) -> list[str] | None:
    """Convert a string or a list of strings; integers (resolutions) are converted to strings."""
    from mvde.errors import ConfigError

    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(one) in (str, int) for one in values):
        raise ConfigError(f"{where} must be a string or a list of strings, but got {value!r}")
    return [str(one) for one in values] or None
