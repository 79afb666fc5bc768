"""Evaluation protocols: depth range, crop, split and averaging.

NumPy is imported lazily: the command line lists :class:`ProtocolName` without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from mvde.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NYU_SIZE = (480, 640)


class Crop(str, Enum):
    """Region of each image that is evaluated."""

    NONE = "none"
    EIGEN = "eigen"
    """KITTI, Eigen et al., 2014: rows and columns as fractions of the image, as in BTS."""
    GARG = "garg"
    """KITTI, Garg et al., 2016: rows and columns as fractions of the image."""
    NYU_EIGEN = "nyu-eigen"
    """NYU: rows 45 to 470 and columns 41 to 600 of 480 x 640, where the projected depth is valid."""

    def __str__(self) -> str:
        return self.value

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Mask (H, W) of the pixels inside the crop, for images of ``size`` (H, W).

        Raises :class:`UsageError` if the crop is not defined for this size.
        """
        import numpy as np

        height, width = size
        inside = np.zeros(size, dtype=bool)
        match self:
            case Crop.NONE:
                inside[:] = True
            case Crop.EIGEN:
                rows = slice(int(0.3324324 * height), int(0.91351351 * height))
                inside[rows, int(0.0359477 * width) : int(0.96405229 * width)] = True
            case Crop.GARG:
                rows = slice(int(0.40810811 * height), int(0.99189189 * height))
                inside[rows, int(0.03594771 * width) : int(0.96405229 * width)] = True
            case Crop.NYU_EIGEN:
                if size != _NYU_SIZE:
                    raise UsageError(f"the crop {self} is for 480x640 pixels, but a frame has {height}x{width}")
                inside[45:471, 41:601] = True
        return inside


class Averaging(str, Enum):
    """What is weighted equally in the mean over a data set."""

    IMAGES = "images"
    """Images: the mean of per-image metrics, as in most published code."""
    PIXELS = "pixels"
    """Evaluated pixels: the metrics of all pixels as one set."""

    def __str__(self) -> str:
        return self.value


class ProtocolName(str, Enum):
    """Published protocols; see :func:`protocol_named` for their values and sources."""

    NYU_EIGEN = "nyu-eigen"
    KITTI_EIGEN = "kitti-eigen"
    KITTI_GARG = "kitti-garg"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class EvaluationProtocol:
    """How metrics are computed.

    Ground truth strictly inside ``range_m`` (nearest, farthest) and inside ``crop`` is evaluated; predictions are
    clamped to the range after alignment, as in published code; sky is at its far end, and pixels that the network masks
    do not count. ``averaging`` applies to the primary figures. ``split``
    names the part of the data set, ``None`` for all frames. ``name`` and ``source`` identify a published protocol,
    ``data_format`` its data set.
    """

    range_m: tuple[float, float]
    crop: Crop = Crop.NONE
    split: str | None = None
    averaging: Averaging = Averaging.IMAGES
    name: str | None = None
    source: str | None = None
    data_format: str | None = None

    def __post_init__(self) -> None:
        low_m, high_m = self.range_m
        if not 0 <= low_m < high_m < math.inf:
            raise UsageError(f"a depth range is MIN,MAX in metres with 0 <= MIN < MAX, but got {low_m:g},{high_m:g}")

    def counted(self, target_m: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Mask (H, W) of the ground truth ``target_m`` (H, W), in metres, that is evaluated."""
        import numpy as np

        height, width = target_m.shape
        with np.errstate(invalid="ignore"):
            inside = (target_m > self.range_m[0]) & (target_m < self.range_m[1])
        counted: NDArray[np.bool_] = inside & self.crop.mask((height, width))
        return counted

    def with_range(self, range_m: tuple[float, float]) -> EvaluationProtocol:
        """Copy with another range; its name then says that it is no longer the published protocol."""
        if range_m == self.range_m:
            return self
        name = None if self.name is None else f"{self.name} with another range"
        return replace(self, range_m=range_m, name=name)

    def describe(self) -> str:
        """One-line summary: name (if any), range, crop, split and averaging."""
        low_m, high_m = self.range_m
        name = "" if self.name is None else f"{self.name}: "
        return (
            f"{name}range {low_m:g}-{high_m:g} m, crop {self.crop}, split {self.split or 'all frames'}, "
            f"averaged over {self.averaging}"
        )

    def to_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "name": self.name,
            "range_m": list(self.range_m),
            "crop": str(self.crop),
            "split": self.split,
            "averaging": str(self.averaging),
            "source": self.source,
        }


def protocol_named(name: ProtocolName) -> EvaluationProtocol:
    """Published protocol by name.

    - ``nyu-eigen``: the 654 test frames of NYU Depth v2's ``splits.mat``, 1e-3 to 10 m, Eigen's crop (Eigen et al.,
      2014, https://arxiv.org/abs/1406.2283; https://github.com/cleinc/bts/blob/master/pytorch/bts_eval.py with
      ``--max_depth_eval 10 --eigen_crop``).
    - ``kitti-garg``: Eigen's test frames of KITTI on the improved ground truth (Uhrig et al., 2017), 1e-3 to 80 m, the
      crop of Garg et al., 2016 (https://arxiv.org/abs/1603.04992;
      https://github.com/nianticlabs/monodepth2/blob/master/evaluate_depth.py, and BTS with ``--garg_crop``).
    - ``kitti-eigen``: the same frames and range with Eigen's crop (BTS with ``--eigen_crop``).
    """
    match name:
        case ProtocolName.NYU_EIGEN:
            crop, source, high_m = Crop.NYU_EIGEN, "https://arxiv.org/abs/1406.2283", 10.0
        case ProtocolName.KITTI_EIGEN:
            crop, source, high_m = Crop.EIGEN, "https://arxiv.org/abs/1406.2283", 80.0
        case ProtocolName.KITTI_GARG:
            crop, source, high_m = Crop.GARG, "https://arxiv.org/abs/1603.04992", 80.0
    data_format = name.value.split("-")[0]
    return EvaluationProtocol((1e-3, high_m), crop, "test", Averaging.IMAGES, name.value, source, data_format)


def parse_range(text: str) -> tuple[float, float]:
    """Parse ``MIN,MAX`` to (nearest, farthest) in metres; raises :class:`UsageError` for any other text."""
    words = text.split(",")
    try:
        low_m, high_m = (float(word) for word in words)
    except ValueError as error:
        raise UsageError(f"--range is MIN,MAX in metres, e.g. 0.001,80, but got {text!r}") from error
    return EvaluationProtocol((low_m, high_m)).range_m
