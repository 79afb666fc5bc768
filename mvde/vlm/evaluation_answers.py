"""Reading answers without another model as judge: options, colours and regions, yes or no, and distances in metres."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

METRES_PER = {
    "m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0,
    "cm": 0.01, "centimeter": 0.01, "centimeters": 0.01, "centimetre": 0.01, "centimetres": 0.01,
    "mm": 0.001, "millimeter": 0.001, "millimeters": 0.001, "millimetre": 0.001, "millimetres": 0.001,
    "km": 1000.0, "kilometer": 1000.0, "kilometers": 1000.0, "kilometre": 1000.0, "kilometres": 1000.0,
    "ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "'": 0.3048,
    "in": 0.0254, "inch": 0.0254, "inches": 0.0254, '"': 0.0254,
    "yd": 0.9144, "yard": 0.9144, "yards": 0.9144,
}  # fmt: skip
"""Metres of one unit, by its name (NIST SP 811 for feet, inches and yards)."""

_WORDS = "|".join(sorted((unit for unit in METRES_PER if unit.isalpha()), key=len, reverse=True))
_NUMBER = r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?"
_DISTANCE = re.compile(rf"({_NUMBER})\s*((?:{_WORDS})(?!\w)|['\"])", re.IGNORECASE)
_BARE = re.compile(_NUMBER)
_LETTER = re.compile(r"\(([A-Z])\)|^\s*([A-Z])(?=[\s.:,)]|$)|\b(?:answer|option|choice)\b\W+(?:is\W+)?([A-Z])\b")
_YES = ("yes", "indeed", "correct", "true", "certainly", "absolutely")
_NO = ("no", "not", "incorrect", "false", "actually", "wrong")


def letter_of(text: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option that an answer chooses, ``None`` if it chooses none or several.

    A letter counts as ``(A)``, ``A.`` at the start, or after "answer is"; otherwise the only option named in words.
    """
    letters = [chr(ord("A") + number) for number in range(len(options))]
    given = {next(part for part in match.groups() if part) for match in _LETTER.finditer(text)} & set(letters)
    if given:
        return given.pop() if len(given) == 1 else None
    named = [letter for letter, option in zip(letters, options, strict=True) if _names(text, option)]
    return named[0] if len(named) == 1 else None


def word_of(text: str, words: Sequence[str]) -> str | None:
    """Return the only one of ``words`` that an answer names, ``None`` if none or several."""
    named = [word for word in words if _names(text, word)]
    return named[0] if len(named) == 1 else None


def polarity_of(text: str) -> bool | None:
    """Whether an answer begins with yes (True) or no (False); ``None`` if its first words say neither."""
    for word in re.findall(r"[a-z]+", text.lower())[:3]:
        if word in _NO:
            return False
        if word in _YES:
            return True
    return None


def metres_of(text: str) -> float | None:
    """Return the distance in metres that an answer states, ``None`` without a positive number.

    The first number with a unit counts; ``5 feet 3 inches`` is one distance. A number without any unit is in metres.
    """
    first = _DISTANCE.search(text)
    if first is None:
        bare = _BARE.search(text)
        return _positive(_value(bare[0])) if bare else None
    metres = _value(first[1]) * METRES_PER[first[2].lower()]
    rest = _DISTANCE.match(text[first.end() :].lstrip(" ,and"))
    if rest and METRES_PER[first[2].lower()] == METRES_PER["ft"] and METRES_PER[rest[2].lower()] == METRES_PER["in"]:
        metres += _value(rest[1]) * METRES_PER["in"]
    return _positive(metres)


def _names(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words.strip().lower())}(?!\w)", text.lower()) is not None


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _positive(value: float) -> float | None:
    return value if 0 < value < math.inf else None
