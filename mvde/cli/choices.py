"""What options with a fixed set of answers accept: checked, and listed by ``--help``.

The parts that the words belong to load NumPy; these load nothing. A test holds the two to each other.
"""

from __future__ import annotations

from enum import Enum


class Choice(str, Enum):
    """A word of the command line; it equals its text."""

    def __str__(self) -> str:
        return str(self.value)


class FitChoice(Choice):
    """How a picture of another shape is brought to the engine's resolution (:mod:`mvde.runtime.placement`)."""

    STRETCH = "stretch"
    LETTERBOX = "letterbox"
    CROP = "crop"


class DataFormat(Choice):
    """On-disk formats of data sets (:mod:`mvde.datasets.formats`)."""

    FOLDER = "folder"
    SYNTHETIC = "synthetic"
    NYU = "nyu"
    KITTI = "kitti"
    TUM = "tum"
    DIODE = "diode"
    HYPERSIM = "hypersim"


class Alignment(Choice):
    """How predicted depth is fitted to the ground truth before it is compared (:mod:`mvde.metrics`)."""

    NONE = "none"
    MEDIAN = "median"
    SCALE = "scale"
    SCALE_SHIFT = "scale_shift"


class Method(Choice):
    """How the ranges of int8 and fp8 are taken from what calibration saw (:mod:`mvde.export.precision.options`)."""

    AUTO = "auto"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


class LoweredTo(Choice):
    """Precisions that a graph can be lowered to (:data:`mvde.precision.LOWERED`)."""

    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class Rest(Choice):
    """What the nodes that an int8 or fp8 graph does not quantise compute in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Split(Choice):
    """Parts of the rendered scenes, which share none (:mod:`mvde.datasets.synthetic`)."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
