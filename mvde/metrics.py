"""Depth metrics in NumPy: AbsRel, SqRel, RMSE, RMSE-log, SILog, log10 and the delta accuracies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvde.alignment import SMALLEST_DEPTH_M, Alignment, align_map
from mvde.contract import DepthKind
from mvde.errors import UsageError
from mvde.protocols import Averaging

Floats = NDArray[np.float64]


def depth_metrics(
    pred_m: ArrayLike,
    target_m: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    alignment: Alignment | str = Alignment.NONE,
    range_m: tuple[float, float] | None = None,
    kind: DepthKind = DepthKind.METRIC,
) -> dict[str, float]:
    """Compute metrics by name over the valid pixels of one image, or of several images as one set.

    ``pred_m`` and ``target_m`` are depths in metres of the same shape; for inverse kinds ``pred_m`` is the map (see
    :func:`mvde.alignment.align_map`). ``valid`` is a mask of that shape, by default where the target is finite and > 0.
    Masked pixels of a masked array are invalid. ``abs_rel``, ``rmse_log`` and ``log10`` are dimensionless, ``sq_rel``
    and ``rmse`` are in metres, ``silog`` is 100 * sqrt(var(ln pred - ln target)) as on the KITTI benchmark, and
    ``deltaK`` is the fraction of pixels with max(pred / target, target / pred) < 1.25^K (Eigen et al., 2014).

    Predictions are clamped to ``range_m`` (nearest, farthest), if given, after alignment, as in published evaluation
    code.

    Raises :class:`UsageError` for mismatched shapes, an unknown alignment, no valid pixel, or a prediction that is not
    finite at a valid pixel.
    """
    return depth_errors(pred_m, target_m, valid, alignment=alignment, range_m=range_m, kind=kind).metrics


@dataclass(frozen=True)
class DepthErrors:
    """Metrics of one set of pixels, the number of pixels, and the mean of ln pred - ln target."""

    metrics: dict[str, float]
    num_pixels: int
    mean_log_difference: float


def depth_errors(
    pred_m: ArrayLike,
    target_m: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    alignment: Alignment | str = Alignment.NONE,
    range_m: tuple[float, float] | None = None,
    kind: DepthKind = DepthKind.METRIC,
) -> DepthErrors:
    """Compute :func:`depth_metrics` plus the values needed to pool images by pixel."""
    pred, target = _valid_pixels(pred_m, target_m, valid)
    pred = np.maximum(align_map(pred, target, alignment, kind), SMALLEST_DEPTH_M)
    if range_m is not None:
        pred = np.clip(pred, max(range_m[0], SMALLEST_DEPTH_M), range_m[1])
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
    metrics = {name: float(value) for name, value in values.items()}
    return DepthErrors(metrics, len(target), float(np.mean(log_difference)))


@dataclass
class MetricTotals:
    """Metrics of many images, per image and averaged over images or pixels.

    ``num_known`` is the number of pixels with ground truth, ``num_counted`` the number of those evaluated,
    ``num_with_camera`` the number of evaluated images whose camera is known.
    """

    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    num_known: int = 0
    num_counted: int = 0
    num_with_camera: int = 0
    _errors: list[DepthErrors] = field(default_factory=list)

    def add(self, name: str, metrics: Mapping[str, float] | DepthErrors) -> None:
        """Add the metrics of one image; raise UsageError for a duplicate name."""
        if name in self.per_image:
            raise UsageError(f"metrics of {name!r} were added before; image names must differ")
        if isinstance(metrics, DepthErrors):
            self._errors.append(metrics)
            metrics = metrics.metrics
        self.per_image[name] = dict(metrics)

    def count(self, num_known: int, num_counted: int) -> None:
        """Add one image's numbers of pixels with ground truth and of pixels evaluated."""
        self.num_known += num_known
        self.num_counted += num_counted

    def merge(self, other: MetricTotals) -> None:
        """Add another set of images behind this one; raise UsageError for an image that is in both."""
        if shared := self.per_image.keys() & other.per_image.keys():
            raise UsageError(f"metrics of {min(shared)!r} are in both sets; image names must differ")
        self.per_image |= other.per_image
        self._errors += other._errors
        self.num_with_camera += other.num_with_camera
        self.count(other.num_known, other.num_counted)

    @property
    def share_counted(self) -> float:
        """Fraction (0 to 1) of the ground truth that was evaluated."""
        return self.num_counted / self.num_known if self.num_known else 0.0

    def overall(self, averaging: Averaging = Averaging.IMAGES) -> dict[str, float]:
        """Mean of each metric over images, or the metrics of all evaluated pixels as one set.

        Raises UsageError if no image was added.
        """
        if not self.per_image:
            raise UsageError("no image was evaluated, so there are no metrics; check the data set and the depth range")
        match averaging:
            case Averaging.IMAGES:
                rows = list(self.per_image.values())
                return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            case Averaging.PIXELS:
                return _pooled(self._errors)

    def to_dict(self, averaging: Averaging = Averaging.IMAGES) -> dict[str, Any]:
        """JSON form: ``overall`` by ``averaging``, both averages, the fraction evaluated, and each image."""
        plain: dict[str, Any] = {"overall": self.overall(averaging), "num_images": len(self.per_image)}
        if self._errors:
            plain["averages"] = {str(kind): self.overall(kind) for kind in Averaging}
            plain["ground_truth_counted"] = self.share_counted
        return {**plain, "per_image": self.per_image}


def _pooled(errors: Sequence[DepthErrors]) -> dict[str, float]:
    """Pool the metrics of several pixel sets: means weighted by pixel count, RMS values by their squares."""
    weights = np.array([one.num_pixels for one in errors], np.float64)
    weights /= weights.sum()

    def mean(values: Iterable[float]) -> float:
        return float(weights @ np.fromiter(values, np.float64, len(errors)))

    rows = [one.metrics for one in errors]
    pooled = {name: mean(row[name] for row in rows) for name in rows[0]}
    for name in ("rmse", "rmse_log"):
        pooled[name] = math.sqrt(mean(row[name] ** 2 for row in rows))
    mean_log = mean(one.mean_log_difference for one in errors)
    inside = mean((one.metrics["silog"] / 100) ** 2 for one in errors)
    between = mean((one.mean_log_difference - mean_log) ** 2 for one in errors)
    pooled["silog"] = 100 * math.sqrt(inside + between)
    return pooled


def _filled(depth_m: ArrayLike) -> Floats:
    """Replace masked pixels by NaN."""
    filled: Floats = np.ma.filled(np.ma.asarray(depth_m, np.float64), np.nan)
    return filled


def _valid_pixels(pred_m: ArrayLike, target_m: ArrayLike, valid: ArrayLike | None) -> tuple[Floats, Floats]:
    pred, target = _filled(pred_m), _filled(target_m)
    mask = np.isfinite(target) & (target > 0)
    if valid is not None:
        given: NDArray[np.bool_] = np.ma.filled(np.ma.asarray(valid, bool), False)
        if given.shape != target.shape:
            raise UsageError(f"valid has shape {given.shape}, but target_m has {target.shape}; they must be equal")
        mask &= given
    if pred.shape != target.shape:
        raise UsageError(f"pred_m has shape {pred.shape}, but target_m has {target.shape}; resize one to the other")
    if not mask.any():
        raise UsageError("the target has no valid pixel (finite and > 0 inside the mask); leave this image out")
    pred, target = pred[mask], target[mask]
    if not np.isfinite(pred).all():
        raise UsageError("the prediction is not finite at some valid pixels; its metrics would be meaningless")
    return pred, target
