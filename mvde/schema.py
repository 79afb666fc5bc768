"""Strict conversion of JSON to dataclasses: exactly the annotated keys and types; errors name the offending key.

Dataclasses validate their values in ``__post_init__`` and raise :class:`ManifestError`; readers do not check again.
JSON parsing is equally strict, see :func:`parse_json`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from mvde.errors import ManifestError

T = TypeVar("T")

_MAX_NESTING = 64  # of objects and lists; equals kMaxNesting in cpp/src/session/json.cpp
_MAX_INTEGER = 2**63
_REMEDY = "export or build the artefact again"


def parse_json(text: str) -> Any:
    """Parse strictly standard JSON: no NaN or Infinity, no duplicate keys, no unpaired surrogates.

    Integers must fit 64 bits, and other numbers float64 without overflow to infinity or underflow to 0. Raises
    :class:`ValueError` with the reason, :class:`RecursionError` for objects and lists nested more than 64 deep.
    """
    plain = json.loads(
        text,
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=_real,
        parse_constant=_no_constant,
    )
    _check_texts(plain, 0)
    return plain


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) < len(pairs):
        raise ValueError("Duplicate property name")
    return plain


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -_MAX_INTEGER <= (value := int(digits)) < _MAX_INTEGER:
        raise ValueError("Number out of range")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    is_zero = re.fullmatch("-?[0.]+", re.split("[eE]", digits)[0]) is not None
    if abs(value) == float("inf") or (value == 0 and not is_zero):
        raise ValueError("Number out of range")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON's")


def _check_texts(plain: Any, depth: int) -> None:
    """Raise for unpaired surrogates and excessive nesting."""
    if depth > _MAX_NESTING:
        raise RecursionError
    if isinstance(plain, str) and re.search("[\ud800-\udfff]", plain):
        raise ValueError("Unpaired surrogate")
    if isinstance(plain, dict | list):
        for item in (*plain, *plain.values()) if isinstance(plain, dict) else plain:
            _check_texts(item, depth + 1)


def read_record(kind: type[T], plain: Any, where: str, prefix: str = "", remedy: str = _REMEDY) -> T:
    """Build a dataclass from a mapping with exactly its keys; keys with a default may be missing.

    ``where`` names the file in errors, ``prefix`` the position in it (``"engine."``), ``remedy`` what to do about a
    missing key. Raises :class:`ManifestError` naming the key that is missing, unknown, of another type or out of range.
    """
    if not isinstance(plain, dict):
        raise ManifestError(f"{where}: {prefix or 'the manifest'} must be an object, but got {type(plain).__name__}")
    specs = {spec.name: spec for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key in plain:
        if key not in specs:
            raise ManifestError(f"{where}: unknown key {prefix}{key}; known keys: {', '.join(specs)}")
    values = {}
    for name, spec in specs.items():
        if name in plain:
            values[name] = _convert(hints[name], plain[name], where, prefix + name, remedy)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ManifestError(f"{where}: the key {prefix}{name} is missing; {remedy}")
    try:
        return kind(**values)
    except ManifestError as error:
        raise ManifestError(f"{where}: {error}") from None


def to_json_types(record: Any) -> dict[str, Any]:
    """Convert a dataclass to nested JSON types, recursively omitting fields with default values.

    Raises :class:`ValueError` for a non-finite number.
    """
    plain: dict[str, Any] = json.loads(json.dumps(_plain(record), allow_nan=False))
    return plain


def expect(holds: bool, key: str, got: object, expected: str) -> None:
    """Raise :class:`ManifestError` with key, actual and expected value unless the condition holds."""
    if not holds:
        raise ManifestError(f"{key} is {got!r}, but expected {expected}")


def is_name(text: str, max_length: int) -> bool:
    """Whether ``text`` is safe in paths, command lines and other programs' configuration without quoting.

    It starts with a letter or digit, followed by letters, digits, '.', '-' or '_'; this excludes ``..`` and separators.
    """
    return len(text) <= max_length and re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        specs = dataclasses.fields(value)
        return {spec.name: _plain(item) for spec in specs if (item := getattr(value, spec.name)) != _default(spec)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _default(spec: dataclasses.Field[Any]) -> Any:
    return spec.default_factory() if spec.default_factory is not dataclasses.MISSING else spec.default


def _convert(hint: Any, value: Any, where: str, key: str, remedy: str) -> Any:
    """Convert ``value`` to the annotated type; only int → float, list → tuple and text → enum are coerced."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, where, key, remedy)
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast("type[Any]", hint), value, where, f"{key}.", remedy)
    if origin is tuple:
        return _convert_tuple(arguments, value, where, key, remedy)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _convert_enum(hint, value, where, key)
    if hint is float and type(value) is int:
        return float(value)
    expected: Any = origin or hint
    if type(value) is not expected:
        raise ManifestError(f"{where}: {key} must be {expected.__name__}, but got {type(value).__name__} {value!r}")
    if origin is dict:
        return {name: _convert(arguments[1], item, where, f"{key}.{name}", remedy) for name, item in value.items()}
    return value


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str, key: str, remedy: str) -> tuple[Any, ...]:
    num_fixed = None if arguments[-1] is Ellipsis else len(arguments)
    if not isinstance(value, list) or (num_fixed is not None and len(value) != num_fixed):
        wanted = "a list" if num_fixed is None else f"a list of {num_fixed}"
        raise ManifestError(f"{where}: {key} must be {wanted}, but got {value!r}")
    return tuple(_convert(arguments[0], item, where, f"{key}[{index}]", remedy) for index, item in enumerate(value))


def _convert_enum(hint: type[enum.Enum], value: Any, where: str, key: str) -> enum.Enum:
    names = [member.value for member in hint]
    if type(value) is not str or value not in names:
        raise ManifestError(f"{where}: {key} is {value!r}, but expected one of {', '.join(names)}")
    return hint(value)
