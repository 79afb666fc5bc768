"""OmegaConf, where it is installed, and its errors in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mvde.errors import MissingDependencyError


def omegaconf() -> Any:
    """Return the class OmegaConf. Raises :class:`MissingDependencyError` without the extra ``model``."""
    try:
        from omegaconf import OmegaConf
    except ImportError as error:
        raise MissingDependencyError.for_extra("omegaconf", "model", "reading a configuration") from error
    return OmegaConf


def omegaconf_errors() -> tuple[type[Exception], ...]:
    """Return the classes of OmegaConf's errors."""
    from omegaconf.errors import OmegaConfBaseException

    return (OmegaConfBaseException,)


def explain(error: Exception, where: str, schema: Any, given: Any) -> str:
    """Return one line for an error of merging ``given`` into ``schema``: where, which key, why, and the known keys."""
    reason = (getattr(error, "msg", None) or str(error) or type(error).__name__).splitlines()[0]
    key = getattr(error, "full_key", None)
    if not key:  # OmegaConf gives no key for list elements, nor for a scalar in place of a section
        key, value = next((leaf for leaf in _leaves(given) if not _merges(schema, *leaf)), ("a value", None))
        reason = reason.replace("$VALUE_TYPE", type(value).__name__).replace("$VALUE", str(value))
    owner = getattr(error, "object_type", None)
    known = f"; known keys: {names_of(owner)}" if dataclasses.is_dataclass(owner) and "not in" in reason else ""
    return f"{where}: {key}: {reason}{known}"


def _leaves(given: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over dotted keys and plain values of all leaves."""
    for key, value in omegaconf().to_container(given).items() if not prefix else given.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merges(schema: Any, key: str, value: Any) -> bool:
    oc = omegaconf()
    try:
        oc.merge(schema, _nested(key, value))
    except omegaconf_errors():
        return False
    return True


def _nested(key: str, value: Any) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    return {head: _nested(rest, value) if rest else value}


def names_of(kind: Any) -> str:
    """Return the names of a dataclass' fields, separated by commas."""
    return ", ".join(spec.name for spec in dataclasses.fields(kind))
