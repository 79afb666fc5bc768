"""What options with a fixed set of answers accept: checked, and listed by ``--help``.

Where the part that the words belong to has them as a type that loads nothing (``Fit``, ``RangeMethod``), the verbs take
that; the parts behind these load NumPy, and a test holds the words to theirs.
"""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    """A word of the command line; it equals its text."""

    def __str__(self) -> str:
        return str(self.value)


class DataFormat(_Word):
    """On-disk formats of data sets (:mod:`mvde.datasets.formats`)."""

    FOLDER = "folder"
    SYNTHETIC = "synthetic"
    NYU = "nyu"
    KITTI = "kitti"
    TUM = "tum"
    DIODE = "diode"
    HYPERSIM = "hypersim"


class Alignment(_Word):
    """How predicted depth is fitted to the ground truth before it is compared (:mod:`mvde.metrics`)."""

    NONE = "none"
    MEDIAN = "median"
    SCALE = "scale"
    SCALE_SHIFT = "scale_shift"


class LoweredTo(_Word):
    """Precisions that a graph can be lowered to (:data:`mvde.precision.LOWERED`)."""

    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class Rest(_Word):
    """What the nodes that an int8 or fp8 graph does not quantise compute in: the floats of :class:`Precision`."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Split(_Word):
    """Parts of the rendered scenes, which share none (:mod:`mvde.datasets.synthetic`)."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
