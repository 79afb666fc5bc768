"""Choices of the command line, without any heavy import."""

from __future__ import annotations

from enum import Enum


class EvaluationFormat(str, Enum):
    """Layout of a file of questions; its value is the name in options."""

    LLAVA = "llava"
    CVBENCH = "cvbench"
    BLINK = "blink"
    SRGPT_BENCH = "srgpt-bench"

    def __str__(self) -> str:
        return self.value


class QuestionKind(str, Enum):
    """What a question asks for."""

    RELATIVE = "relative"
    METRIC = "metric"
    CHOICE = "choice"

    def __str__(self) -> str:
        return self.value


class Rounding(str, Enum):
    """How answers state a distance: two decimals, or the nearest preferred number (R10, at most 12 % off)."""

    CENTIMETRE = "centimetre"
    PREFERRED = "preferred"

    def __str__(self) -> str:
        return self.value
