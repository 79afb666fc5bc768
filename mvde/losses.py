"""Losses on depth: scale-invariant log, L1 in metres and in log depth, BerHu, multi-scale gradient matching.

Every function takes ``pred`` and ``target`` (B, H, W) in metres and ``valid`` (B, H, W) bool, averages over the valid
pixels of each image and then over the images. Averaging per image first keeps the mean over processes equal to the
mean over the global batch, however unevenly valid pixels are spread. An image without a valid pixel contributes 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mvde.config import LossConfig

SMALLEST_DEPTH_M = 1e-3


def valid_mask(target: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Bool mask like ``target``: finite, and inside ``[min_depth, max_depth]`` metres."""
    return torch.isfinite(target) & (target >= min_depth) & (target <= max_depth)


def silog_loss(pred: Tensor, target: Tensor, valid: Tensor, variance_focus: float = 0.85) -> Tensor:
    """Scalar scale-invariant log loss: mean(g^2) - ``variance_focus`` * mean(g)^2 with g = ln pred - ln target.

    Eigen et al., 2014, eq. 4 (lambda there is ``variance_focus`` here; 1 ignores scale, 0 is squared log error).
    """
    difference = _log_difference(pred, target, valid)
    mean = _per_image_mean(difference, valid)
    mean_square = _per_image_mean(difference.square(), valid)
    return (mean_square - variance_focus * mean.square()).mean()


def log_l1_loss(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Scalar mean of |ln pred - ln target|."""
    return _per_image_mean(_log_difference(pred, target, valid).abs(), valid).mean()


def l1_loss(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Scalar mean absolute difference in metres."""
    return _per_image_mean(_difference(pred, target, valid).abs(), valid).mean()


def berhu_loss(pred: Tensor, target: Tensor, valid: Tensor, threshold_fraction: float = 0.2) -> Tensor:
    """Scalar reverse Huber loss in metres: |d| below c, (d^2 + c^2) / 2c above (Laina et al., 2016).

    c is ``threshold_fraction`` of the largest |d| of each image.
    """
    size = _difference(pred, target, valid).abs()
    c = (threshold_fraction * size.detach().amax(dim=(1, 2), keepdim=True)).clamp_min(1e-6)
    return _per_image_mean(torch.where(size <= c, size, (size.square() + c.square()) / (2 * c)), valid).mean()


def gradient_loss(pred: Tensor, target: Tensor, valid: Tensor, num_scales: int = 4) -> Tensor:
    """Scalar mean |dx| + |dy| of the log-depth difference, summed over scales of every 2^k-th pixel.

    Li and Snavely, 2018 (MegaDepth), eq. 4; as in MiDaS the scales are subsampled and a difference counts where both
    its pixels are valid. Scales at which a side has fewer than two pixels are left out.
    """
    difference = _log_difference(pred, target, valid)
    total = pred.new_zeros(())
    for scale in range(num_scales):
        step = 2**scale
        g, v = difference[:, ::step, ::step], valid[:, ::step, ::step]
        if min(g.shape[1:]) < 2:
            break
        dx, dy = (g[:, :, 1:] - g[:, :, :-1]).abs(), (g[:, 1:] - g[:, :-1]).abs()
        vx, vy = v[:, :, 1:] & v[:, :, :-1], v[:, 1:] & v[:, :-1]
        count = v.sum(dim=(1, 2)).clamp_min(1)
        total = total + (((dx * vx).sum(dim=(1, 2)) + (dy * vy).sum(dim=(1, 2))) / count).mean()
    return total


def depth_loss(pred: Tensor, target: Tensor, valid: Tensor, weights: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum (scalar), and each term by name before its weight; terms of weight 0 are not computed."""
    terms: dict[str, Callable[[], Tensor]] = {
        "silog": lambda: silog_loss(pred, target, valid, weights.silog_lambda),
        "log_l1": lambda: log_l1_loss(pred, target, valid),
        "l1": lambda: l1_loss(pred, target, valid),
        "berhu": lambda: berhu_loss(pred, target, valid),
        "gradient": lambda: gradient_loss(pred, target, valid, weights.gradient_scales),
    }
    parts = {name: term() for name, term in terms.items() if getattr(weights, name) != 0}
    total = pred.new_zeros(())
    for name, value in parts.items():
        total = total + getattr(weights, name) * value
    return total, {name: value.detach() for name, value in parts.items()}


def _log_difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    # Invalid targets are replaced before the logarithm: 0 * inf would put NaN into the gradient.
    safe_target = torch.where(valid, target, 1.0).clamp_min(SMALLEST_DEPTH_M)
    safe_pred = torch.where(valid, pred, 1.0).clamp_min(SMALLEST_DEPTH_M)
    return safe_pred.log() - safe_target.log()


def _difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, pred, 0.0) - torch.where(valid, target, 0.0)


def _per_image_mean(values: Tensor, valid: Tensor) -> Tensor:
    count = valid.sum(dim=(1, 2)).clamp_min(1)
    return (values * valid).sum(dim=(1, 2)) / count  # (B,)
