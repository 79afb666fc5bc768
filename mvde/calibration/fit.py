"""Fit of a fixed scene: scale and shift from reference points of several frames, and the reasons to refuse them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mvde.calibration.solve import MIN_DISTANCE_RATIO, apply, num_unknowns, solve
from mvde.contract import DepthKind
from mvde.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MIN_POINTS = 5
"""Fewest reference points of a calibration: a trend over distance cannot be told from noise with less."""
MIN_FRAMES = 5
"""Fewest frames for kinds whose scale differs from picture to picture."""
MAX_HELD_OUT_ERROR = 0.15
"""Largest held-out median AbsRel, and largest spread of per-frame scales, of these kinds."""
MAX_TREND = 0.10
"""Largest change of the relative error from the nearest to the farthest point, unless it is within the noise."""
MAX_UNCERTAINTY = 0.05
"""Largest relative standard error of depth at any point that comes from scale and shift."""
MAX_FRAME_POINTS = 2000
"""Points taken of a frame, evenly spread: a depth camera's picture counts as much as any other."""
_NUM_FOLDS = 5
_SIGNIFICANT = 3.0  # standard errors


@dataclass(frozen=True)
class FramePoints:
    """Reference points of one frame.

    ``values`` (n,) float64 are the network's map there, for the frame's camera and in the map's unit; ``depth_m`` (n,)
    float64 the known depth along the optical axis in metres. ``name`` is the frame's, for errors.
    """

    name: str
    values: Floats
    depth_m: Floats


@dataclass(frozen=True)
class Fit:
    """Fitted ``scale`` and ``shift``, and how well they hold.

    ``held_out_abs_rel`` is the median of |d̂ / d − 1| over points that were left out of the fit in turn, ``spread`` the
    standard deviation of the logarithm of the factors that single frames would need besides (0 for one frame),
    ``distance_m`` the nearest and farthest known distance in metres.
    """

    scale: float
    shift: float
    num_points: int
    num_frames: int
    distance_m: tuple[float, float]
    held_out_abs_rel: float
    spread: float


def fit(kind: DepthKind, frames: Sequence[FramePoints]) -> Fit:
    """Fit scale and shift of a map of ``kind``; frames weigh alike up to ``MAX_FRAME_POINTS`` points.

    Raises :class:`CalibrationError` for too few points or frames, for points at one distance, for a relative error
    with a trend over distance, and for kinds that are relative for a fit that does not hold on other frames.
    """
    frames = [usable for one in frames if len((usable := _usable(one)).values)]
    values, depth_m = _joined(frames)
    _check_points(kind, frames, depth_m)
    scale, shift = solve(kind, values, depth_m)
    errors = apply(kind, scale, shift, values) / depth_m - 1
    held_out = float(np.median(np.abs(_held_out_errors(kind, frames))))
    spread = _spread(kind, scale, shift, frames)
    if _is_relative(kind):
        _check_holds(kind, held_out, spread)
    _check_determined(kind, values, depth_m, errors)
    _check_trend(kind, depth_m, errors)
    distance_m = float(depth_m.min()), float(depth_m.max())
    return Fit(scale, shift, len(values), len(frames), distance_m, held_out, spread)


def _is_relative(kind: DepthKind) -> bool:
    """Whether scale and shift differ from picture to picture."""
    return kind in (DepthKind.SCALE_INVARIANT, DepthKind.INVERSE_RELATIVE)


def _usable(frame: FramePoints) -> FramePoints:
    """Points where both numbers are positive and finite, thinned evenly in their order."""
    valid = np.isfinite(frame.values) & (frame.values > 0) & np.isfinite(frame.depth_m) & (frame.depth_m > 0)
    values, depth_m = frame.values[valid], frame.depth_m[valid]
    taken = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_FRAME_POINTS)).astype(np.int64))
    return FramePoints(frame.name, values[taken], depth_m[taken])


def _joined(frames: Sequence[FramePoints]) -> tuple[Floats, Floats]:
    if not frames:
        return np.empty(0), np.empty(0)
    return np.concatenate([one.values for one in frames]), np.concatenate([one.depth_m for one in frames])


def _check_points(kind: DepthKind, frames: Sequence[FramePoints], depth_m: Floats) -> None:
    if len(depth_m) < MIN_POINTS:
        raise CalibrationError(
            f"a calibration needs at least {MIN_POINTS} points where the network has a value, but got {len(depth_m)}; "
            "measure more"
        )
    if _is_relative(kind) and len(frames) < MIN_FRAMES:
        raise CalibrationError(
            f"the scale of kind {kind} differs from picture to picture, so a calibration needs at least {MIN_FRAMES} "
            f"frames with points, but got {len(frames)}; take more, or give anchors in every frame: "
            "DepthRuntime.infer(anchors=)"
        )
    nearest, farthest = float(depth_m.min()), float(depth_m.max())
    if farthest < MIN_DISTANCE_RATIO * nearest:
        raise CalibrationError(
            f"all points are between {nearest:.3g} and {farthest:.3g} m, which does not show whether one scale holds "
            f"at other distances; measure some at {MIN_DISTANCE_RATIO:g} times the distance of the nearest, or farther"
        )


def _check_determined(kind: DepthKind, values: Floats, depth_m: Floats, errors: Floats) -> None:
    """Refuse a scale and a shift that the points leave open: the standard error of depth at the points themselves."""
    if num_unknowns(kind) < 2:
        return
    columns = np.stack([values * depth_m, depth_m], axis=1)
    variance = float(errors @ errors) / max(1, len(errors) - 2)
    covariance = variance * np.linalg.inv(columns.T @ columns)
    uncertainty = float(np.sqrt(np.einsum("ni,ij,nj->n", columns, covariance, columns).max()))
    if uncertainty > MAX_UNCERTAINTY:
        raise CalibrationError(
            f"the points do not determine scale and shift: depth at one of them is uncertain by {uncertainty:.0%} "
            f"(at most {MAX_UNCERTAINTY:.0%}); measure more points, at more distances"
        )


def _check_trend(kind: DepthKind, depth_m: Floats, errors: Floats) -> None:
    """Refuse a relative error, with or without its sign, that changes over distance beyond its noise."""
    distance = np.log(depth_m)
    span = float(np.ptp(distance))
    centred = distance - distance.mean()
    for measured in (errors, np.abs(errors)):
        slope = float(centred @ measured) / float(centred @ centred)
        rest = measured - measured.mean() - slope * centred
        deviation = float(np.sqrt(rest @ rest / max(1, len(rest) - 2) / (centred @ centred)))
        change = slope * span
        if abs(change) > MAX_TREND and abs(slope) > _SIGNIFICANT * deviation:
            nearest, farthest = float(depth_m.min()), float(depth_m.max())
            what = "scale and shift do" if num_unknowns(kind) == 2 else "one scale does"
            raise CalibrationError(
                f"the relative error changes by {change:+.0%} from {nearest:.3g} m to {farthest:.3g} m (at most "
                f"{MAX_TREND:.0%}), so {what} not fit this map; check the distances and --fit, --camera, or train the "
                "model on such scenes"
            )


def _check_holds(kind: DepthKind, held_out: float, spread: float) -> None:
    for what, value in (("held-out median AbsRel", held_out), ("spread of the scales of single frames", spread)):
        if value > MAX_HELD_OUT_ERROR:
            raise CalibrationError(
                f"the {what} is {value:.0%}, above {MAX_HELD_OUT_ERROR:.0%}: the frames of a map of kind {kind} do not "
                "share scale and shift; keep camera and scene fixed, or give anchors in every frame: "
                "DepthRuntime.infer(anchors=)"
            )


def _held_out_errors(kind: DepthKind, frames: Sequence[FramePoints]) -> Floats:
    """Relative errors of points, each by a fit without its fold: of whole frames if there are enough of them."""
    values, depth_m = _joined(frames)
    if len(frames) >= MIN_FRAMES:
        lengths = [len(one.values) for one in frames]
        fold = np.repeat(np.arange(len(frames)) % _NUM_FOLDS, lengths)
    else:
        fold = np.arange(len(values)) % _NUM_FOLDS
    errors = np.empty_like(depth_m)
    for number in range(_NUM_FOLDS):
        held = fold == number
        try:
            scale, shift = solve(kind, values[~held], depth_m[~held])
        except CalibrationError as error:
            raise CalibrationError(f"a fifth of the frames decides alone; without it, {error}") from error
        errors[held] = apply(kind, scale, shift, values[held]) / depth_m[held] - 1
    return errors


def _spread(kind: DepthKind, scale: float, shift: float, frames: Sequence[FramePoints]) -> float:
    """Standard deviation of the logarithm of each frame's median of d / d̂."""
    if len(frames) < 2:
        return 0.0
    factors = [np.median(one.depth_m / apply(kind, scale, shift, one.values)) for one in frames]
    return float(np.std(np.log(factors), ddof=1))
