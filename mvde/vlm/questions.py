"""Questions about depth: what is asked of two marked boxes of a picture, and the true answer.

A red and a blue box mark two places; the distance of a box is the median depth of its pixels, in metres along the
optical axis. Three kinds of questions are asked: which box is nearer (relative), how far one box is (metric), and the
first with its options spelled out in the form of CV-Bench (choice).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from mvde.errors import UsageError
from mvde.vlm.choices import QuestionKind, Rounding

COLOURS = ("red", "blue")
RELATIVE_WORDS = "Which box is nearer to the camera, red or blue?"
METRIC_WORDS = "How far is the {colour} box from the camera in metres?"
CHOICE_WORDS = (
    "Which box is closer to the camera? Select from the following choices.\n(A) the {first} box\n(B) the {second} box"
)

# Renard's series R10 (ISO 3): ten preferred numbers a decade, 26 % apart, so that the nearest is at most 12 % off.
_RENARD_10 = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)


class Cue(str, Enum):
    """Whether height in the picture suggests the answer: what lies lower is usually nearer.

    ``CONSISTENT``: the lower box is the nearer one; of a single box, it lies in the lower half and is nearer than the
    median of the picture, or in the upper half and farther. ``COUNTER``: the other way round.
    """

    CONSISTENT = "consistent"
    COUNTER = "counter"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Box:
    """Part of a picture: rows ``top`` to ``bottom`` and columns ``left`` to ``right`` in pixels, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def row(self) -> float:
        """Height of the centre in the picture, in pixels from the top."""
        return (self.top + self.bottom) / 2

    def corners(self) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom), the order of COCO-like annotations."""
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class MarkedPair:
    """Two boxes of frame ``frame``, and their distances in metres; ``middle_m`` is the median of the frame's boxes.

    ``size`` is the picture's (height, width).
    """

    frame: int
    red: Box
    blue: Box
    red_m: float
    blue_m: float
    middle_m: float
    size: tuple[int, int]

    @property
    def nearer(self) -> str:
        """``"red"`` or ``"blue"``."""
        return "red" if self.red_m < self.blue_m else "blue"

    @property
    def cue(self) -> Cue:
        """Whether the lower box is the nearer one."""
        return Cue.CONSISTENT if (self.red.row > self.blue.row) == (self.red_m < self.blue_m) else Cue.COUNTER

    def box(self, colour: str) -> tuple[Box, float]:
        """Box of a colour and its distance in metres."""
        return (self.red, self.red_m) if colour == "red" else (self.blue, self.blue_m)


@dataclass(frozen=True)
class Question:
    """A question in words, its answer, and what an evaluation needs to know of it.

    ``distance_m`` is the true distance that a metric question asks for; ``options`` are those of a choice, in order.
    """

    kind: QuestionKind
    text: str
    answer: str
    cue: Cue
    distance_m: float | None = None
    options: tuple[str, ...] = ()


def relative_question(pair: MarkedPair) -> Question:
    """Ask which of the two boxes is nearer; the answer is its colour."""
    return Question(QuestionKind.RELATIVE, RELATIVE_WORDS, pair.nearer, pair.cue)


def choice_question(pair: MarkedPair, first: str) -> Question:
    """Ask the same in the form of CV-Bench, with the box of colour ``first`` as (A); the answer is (A) or (B)."""
    second = COLOURS[1 - COLOURS.index(first)]
    text = CHOICE_WORDS.format(first=first, second=second)
    options = (f"the {first} box", f"the {second} box")
    return Question(QuestionKind.CHOICE, text, "(A)" if pair.nearer == first else "(B)", pair.cue, options=options)


def metric_question(pair: MarkedPair, colour: str, rounding: Rounding) -> Question:
    """Ask for the distance of the box of ``colour``; the answer is a number with its unit, such as ``"1.60 m"``."""
    box, distance_m = pair.box(colour)
    is_low, is_near = box.row > pair.size[0] / 2, distance_m < pair.middle_m
    cue = Cue.CONSISTENT if is_low == is_near else Cue.COUNTER
    text = METRIC_WORDS.format(colour=colour)
    return Question(QuestionKind.METRIC, text, f"{distance_text(distance_m, rounding)} m", cue, distance_m)


def distance_text(distance_m: float, rounding: Rounding) -> str:
    """Write a distance in metres as its answer states it, without the unit.

    Raises UsageError for a distance that is not positive and finite.
    """
    if not 0 < distance_m < math.inf:
        raise UsageError(f"a distance is a positive number of metres, but got {distance_m:g}")
    match rounding:
        case Rounding.CENTIMETRE:
            return f"{distance_m:.2f}"
        case Rounding.PREFERRED:
            return f"{preferred_number(distance_m):g}"


def preferred_number(value: float) -> float:
    """Return the number of the series R10 that is nearest to ``value`` in ratio."""
    decade = math.floor(math.log10(value))
    candidates = [number * 10.0**power for power in (decade, decade + 1) for number in _RENARD_10]
    nearest = min(candidates, key=lambda number: abs(math.log(number / value)))
    return float(f"{nearest:.3g}")  # 3.15e-1 rather than its nearest sum of binary fractions
