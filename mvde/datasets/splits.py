"""The parts of data sets, for training, validation and test."""

from __future__ import annotations

from enum import Enum

from mvde.errors import UsageError


class Split(str, Enum):
    """Part of a data set. Those of the synthetic one share no scene, even with equal seeds."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"

    def __str__(self) -> str:
        return self.value

    @property
    def stream(self) -> int:
        """Number that goes into the seeds of its scenes, beside the one that the user gives."""
        return list(Split).index(self)


def check_split(text: Split | str) -> Split:
    """The text as a :class:`Split`. Raises :class:`UsageError` where it is none."""
    try:
        return Split(text)
    except ValueError as error:
        raise UsageError(f"split is {text!r}; expected one of {', '.join(Split)}") from error
