"""Data set splits for training, validation and test."""

from __future__ import annotations

from enum import Enum

from mvde.errors import UsageError


class Split(str, Enum):
    """Split of a data set. Synthetic splits share no scene, even with equal seeds."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"

    def __str__(self) -> str:
        return self.value

    @property
    def stream(self) -> int:
        """Number mixed into the seeds of the split's scenes, besides the user's."""
        return list(Split).index(self)


def check_split(text: Split | str) -> Split:
    """Convert text to a :class:`Split`. Raises :class:`UsageError` for an unknown split."""
    try:
        return Split(text)
    except ValueError as error:
        raise UsageError(f"split is {text!r}; expected one of {', '.join(Split)}") from error
