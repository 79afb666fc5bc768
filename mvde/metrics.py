"""Depth metrics in NumPy: AbsRel, SqRel, RMSE, RMSE-log, SILog, log10 and the delta accuracies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvde.alignment import SMALLEST_DEPTH_M, Alignment, align_depth
from mvde.errors import UsageError

Floats = NDArray[np.float64]


def depth_metrics(
    pred_m: ArrayLike,
    target_m: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    alignment: Alignment | str = Alignment.NONE,
) -> dict[str, float]:
    """Metrics by name over the valid pixels of one image (or of several as one set of pixels).

    ``pred_m`` and ``target_m`` are depths in metres of one shape; ``valid`` is a mask of that shape, by default where
    the target is finite and > 0. Masked pixels of a masked array are not valid. ``abs_rel``, ``rmse_log`` and ``log10``
    have no unit, ``sq_rel`` and ``rmse`` are in metres, ``silog`` is 100 * sqrt(var(ln pred - ln target)) as on the
    KITTI benchmark, and ``deltaK`` is the fraction of pixels with max(pred / target, target / pred) < 1.25^K (Eigen et
    al., 2014).

    Raises :class:`UsageError` for shapes that differ, an unknown alignment, no valid pixel, or a prediction that is
    not finite at a valid pixel.
    """
    pred, target = _valid_pixels(pred_m, target_m, valid)
    pred = np.maximum(align_depth(pred, target, alignment), SMALLEST_DEPTH_M)
    difference, log_difference = pred - target, np.log(pred) - np.log(target)
    ratio = np.maximum(pred / target, target / pred)
    values = {
        "abs_rel": np.mean(np.abs(difference) / target),
        "sq_rel": np.mean(difference**2 / target),
        "rmse": math.sqrt(np.mean(difference**2)),
        "rmse_log": math.sqrt(np.mean(log_difference**2)),
        "silog": 100 * float(np.std(log_difference)),
        "log10": np.mean(np.abs(log_difference)) / math.log(10),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }
    return {name: float(value) for name, value in values.items()}


@dataclass
class MetricTotals:
    """Metrics of many images: kept per image, and averaged over images with equal weight."""

    per_image: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of one image; raise UsageError where the name was there before."""
        if name in self.per_image:
            raise UsageError(f"metrics of {name!r} were added before; image names must differ")
        self.per_image[name] = dict(metrics)

    def overall(self) -> dict[str, float]:
        """Mean of each metric over the images; raises UsageError where none was added."""
        if not self.per_image:
            raise UsageError("no image was evaluated, so there are no metrics; check the data set and the depth range")
        rows = list(self.per_image.values())
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def to_dict(self) -> dict[str, Any]:
        """JSON form: ``overall``, ``num_images`` and ``per_image``."""
        return {"overall": self.overall(), "num_images": len(self.per_image), "per_image": self.per_image}


def _filled(depth_m: ArrayLike) -> Floats:
    """The depth with NaN where it is masked."""
    filled: Floats = np.ma.filled(np.ma.asarray(depth_m, np.float64), np.nan)
    return filled


def _valid_pixels(pred_m: ArrayLike, target_m: ArrayLike, valid: ArrayLike | None) -> tuple[Floats, Floats]:
    pred, target = _filled(pred_m), _filled(target_m)
    mask = np.isfinite(target) & (target > 0)
    if valid is not None:
        given = np.ma.filled(np.ma.asarray(valid, bool), False)
        if given.shape != target.shape:
            raise UsageError(f"valid has shape {given.shape}, but target_m has {target.shape}; they must be equal")
        mask &= given
    if pred.shape != target.shape:
        raise UsageError(f"pred_m has shape {pred.shape}, but target_m has {target.shape}; resize one to the other")
    if not mask.any():
        raise UsageError("the target has no valid pixel (finite and > 0 inside the mask); leave this image out")
    pred, target = pred[mask], target[mask]
    if not np.isfinite(pred).all():
        raise UsageError("the prediction is not finite at some valid pixels; metrics of it would mean nothing")
    return pred, target
