"""The file that lists what ``mvde build --config`` builds. JSON, which a robot reads without another package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = ("engine", "name", "res", "batch")


class Entry(NamedTuple):
    """Engine ids, and what chooses the graphs that they are built from; None leaves it open."""

    engines: list[str] | None
    name: str | None
    res: list[str] | None
    batch: int | None


def read_build_list(path: Path) -> list[Entry]:
    """The entries of the file, as the command line would give them.

    Every entry is an object with ``engine`` (an id or several), and ``name``, ``res`` and ``batch`` where needed.
    Raises :class:`ConfigError` naming the entry and the key that is wrong.
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
        raise ConfigError(f'{path} must be a list of engines, such as [{{"engine": "fp16", "res": ["448", "896"]}}]')
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
        raise ConfigError(f"{where}: name must be a text, but got {name!r}")
    batch = item.get("batch")
    if batch is not None and (type(batch) is not int or batch < 1):
        raise ConfigError(f"{where}: batch must be a whole number from 1 on, but got {batch!r}")
    return Entry(_texts(item.get("engine"), f"{where}: engine"), name, _texts(item.get("res"), f"{where}: res"), batch)


def _texts(value: Any, where: str) -> list[str] | None:
    """A text or a list of them; a number (a resolution) counts as its text."""
    from mvde.errors import ConfigError

    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(one) in (str, int) for one in values):
        raise ConfigError(f"{where} must be a text or a list of texts, but got {value!r}")
    return [str(one) for one in values] or None
