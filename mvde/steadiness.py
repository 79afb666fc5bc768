"""Measures of depth over time, of clips with ground truth: flicker, accuracy, and how fast a change is followed.

All take predictions and truth (T, H, W) of one clip in metres; a pixel counts where the truth is above 0 and the
prediction is finite and above 0. ``is_cut`` (T,) says which frames begin another shot: no measure compares across one.
A prediction in another unit is aligned once per clip before, never per frame, which would hide the flicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mvde.errors import UsageError

Maps: TypeAlias = "NDArray[np.float32]"
"""Depth (T, H, W) in metres."""

LARGEST_CHANGE = 0.5
"""Bound of one point's change in point flicker: beyond it the point is another surface that a hard edge hides."""

_SAME_POINT = 0.03
"""Largest difference between the logarithms of two true depths of one point: resampling at slanted surfaces."""

_NEAREST_M = 0.05
"""A point nearer to the camera's plane than the near plane of the renderer has no place in its picture."""


class PointPairs(NamedTuple):
    """Pixels of one frame and of the one before that show the same point: flat indices into (H, W), each (P,)."""

    now: NDArray[np.int64]
    before: NDArray[np.int64]


class PointFlicker(NamedTuple):
    """Mean and root mean square of the change of log(prediction / truth) at one point from frame to frame."""

    mean: float
    rms: float


def log_errors(pred_m: Maps, truth_m: Maps) -> Maps:
    """Return log(prediction / truth) (T, H, W) float32, NaN where one of them is no distance.

    Raises UsageError unless both have the same shape (T, H, W).
    """
    if pred_m.ndim != 3 or pred_m.shape != truth_m.shape:
        raise UsageError(
            f"predictions have shape {pred_m.shape} and the truth {truth_m.shape}; expected one shape (T, H, W)"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        counted = (truth_m > 0) & np.isfinite(truth_m) & (pred_m > 0) & np.isfinite(pred_m)
        return np.where(counted, np.log(pred_m) - np.log(truth_m), np.nan).astype(np.float32)


def scale_flicker(pred_m: Maps, truth_m: Maps, is_cut: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Root mean square over time of the frame-to-frame change of the median of log(prediction / truth).

    The change of scale that DyFN (arXiv 2605.25308) finds to be most of the flicker of models of single frames; the
    median is the scale factor of Eigen et al. (2014) in the logarithm. 0 for a clip without two frames of one shot.
    """
    errors = log_errors(pred_m, truth_m)
    scales = np.array([_median(frame) for frame in errors])
    changes = [scales[frame] - scales[frame - 1] for frame in _followers(len(scales), is_cut)]
    return _rms(np.array([change for change in changes if np.isfinite(change)]))


def point_pairs(
    truth_m: Maps,
    intrinsics: NDArray[np.float32],
    poses: NDArray[np.float64],
    is_cut: Sequence[bool] | NDArray[np.bool_],
    step: int = 2,
) -> list[PointPairs | None]:
    """Return for each frame the pixels that show a point of the frame before, ``None`` for the first of a shot.

    Every ``step``-th pixel's true depth is carried by the ``poses`` (T, 3, 4), world from camera with x right, y down
    and z forward, into the frame before, at its nearest pixel (``intrinsics`` (T, 4), integer at centres). It is the
    same point, and visible, where the depth found there agrees within 3 %, so that what moves or is hidden is left out.
    The warping by geometry instead of optical flow follows the temporal alignment error of Depth Any Video (Yang et
    al., 2024, arXiv 2410.10815).
    """
    followers = set(_followers(len(truth_m), is_cut))
    return [
        _pairs(truth_m, intrinsics, poses, frame, step) if frame in followers else None for frame in range(len(truth_m))
    ]


def point_flicker(pred_m: Maps, truth_m: Maps, pairs: Sequence[PointPairs | None]) -> PointFlicker:
    """Mean and rms over the ``pairs`` of the change of log(prediction / truth), each change at most 0.5.

    The temporal alignment error of Depth Any Video (Yang et al., 2024) of errors instead of depths: what is left
    is the prediction's own change, not that of the distance. Frames count alike. 0 for a clip without a pair.
    """
    errors = log_errors(pred_m, truth_m).reshape(len(pred_m), -1)
    means, squares = [], []
    for frame, pair in enumerate(pairs):
        if pair is None:
            continue
        change = np.abs(errors[frame][pair.now] - errors[frame - 1][pair.before])
        change = np.minimum(change[np.isfinite(change)], LARGEST_CHANGE)
        if len(change):
            means.append(float(change.mean()))
            squares.append(float((change**2).mean()))
    if not means:
        return PointFlicker(0.0, 0.0)
    return PointFlicker(float(np.mean(means)), float(np.sqrt(np.mean(squares))))


def frame_abs_rel(pred_m: Maps, truth_m: Maps) -> NDArray[np.float64]:
    """Mean of abs(prediction - truth) / truth, (T,) (AbsRel, Eigen et al., 2014); NaN without a pixel."""
    errors = log_errors(pred_m, truth_m)
    return np.array(
        [np.abs(np.expm1(frame[np.isfinite(frame)])).mean() if np.isfinite(frame).any() else np.nan for frame in errors]
    )


def excess_after_cut(
    pred_m: Maps,
    plain_m: Maps,
    truth_m: Maps,
    is_cut: Sequence[bool] | NDArray[np.bool_],
    num_frames: int = 5,
) -> float:
    """AbsRel of the ``num_frames`` from each cut on, less that of ``plain_m``, the same model frame by frame.

    The step response of control engineering at the harshest step there is: above 0 is what the past of another scene
    leaves behind. NaN for a clip without a cut.
    """
    excess = frame_abs_rel(pred_m, truth_m) - frame_abs_rel(plain_m, truth_m)
    after = [excess[start : start + num_frames] for start in np.flatnonzero(is_cut)]
    return float(np.nanmean(np.concatenate(after))) if after else float("nan")


def step_residual(
    pred_m: Maps, plain_m: Maps, truth_m: Maps, is_cut: Sequence[bool] | NDArray[np.bool_], lag: int = 0
) -> float:
    """Share of the steps that a moving thing makes which is left ``lag`` frames later; NaN without a step.

    A step is a pixel whose true depth changes by more than a quarter from one frame to the next and then stays within
    a tenth, where the same model frame by frame, ``plain_m``, takes a step of more than 0.15 in the logarithm in the
    same direction within three frames. What is left is the sum of abs(log(prediction / plain)) over that of the steps
    (the step response of control engineering).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        truth, pred, plain = (np.where(maps > 0, np.log(maps), np.nan) for maps in (truth_m, pred_m, plain_m))
    cut = np.asarray(is_cut, np.bool_)
    left = taken = 0.0
    last = max(lag, 2)
    for frame in range(1, len(truth) - last):
        if cut[frame : frame + last + 1].any():
            continue
        true_step, step = truth[frame] - truth[frame - 1], plain[frame + 2] - plain[frame - 1]
        with np.errstate(invalid="ignore"):
            chosen = (np.abs(true_step) > np.log(1.25)) & (np.abs(step) > 0.15) & (true_step * step > 0)
            chosen &= np.abs(truth[frame + lag] - truth[frame]) < 0.1
        distance = np.abs(pred[frame + lag] - plain[frame + lag])
        chosen &= np.isfinite(distance)
        left += float(distance[chosen].sum())
        taken += float(np.abs(step[chosen]).sum())
    return left / taken if taken else float("nan")


def _pairs(
    truth_m: Maps, intrinsics: NDArray[np.float32], poses: NDArray[np.float64], frame: int, step: int
) -> PointPairs:
    height, width = truth_m.shape[1:]
    rows, columns = np.mgrid[0:height:step, 0:width:step].reshape(2, -1)
    depth = truth_m[frame, rows, columns].astype(np.float64)
    fx, fy, cx, cy = intrinsics[frame].astype(np.float64)
    points = np.stack([(columns - cx) / fx * depth, (rows - cy) / fy * depth, depth], axis=-1)
    now, before = poses[frame], poses[frame - 1]
    x, y, z = ((points @ now[:, :3].T + now[:, 3] - before[:, 3]) @ before[:, :3]).T
    fx, fy, cx, cy = intrinsics[frame - 1].astype(np.float64)
    ahead = np.maximum(z, _NEAREST_M)
    column, row = np.rint(x / ahead * fx + cx), np.rint(y / ahead * fy + cy)
    seen = (depth > 0) & (z > _NEAREST_M) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (np.where(seen, row, 0) * width + np.where(seen, column, 0)).astype(np.int64)
    found = truth_m[frame - 1].ravel()[place]
    seen &= (found > 0) & (np.abs(np.log(np.where(found > 0, found, 1.0) / ahead)) < _SAME_POINT)
    return PointPairs((rows * width + columns)[seen], place[seen])


def _followers(count: int, is_cut: Sequence[bool] | NDArray[np.bool_]) -> list[int]:
    """Frames that follow another one of the same shot."""
    if len(is_cut) != count:
        raise UsageError(f"is_cut has {len(is_cut)} values for {count} frames; give one for each")
    return [frame for frame in range(1, count) if not is_cut[frame]]


def _median(values: Maps) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
