"""Losses on depth: scale-invariant log, L1 in metres and in log depth, BerHu, multi-scale gradient matching.

Every function takes ``pred`` and ``target`` (B, H, W) in metres and ``valid`` (B, H, W) bool, and averages over the
valid pixels of each image, then over images. Averaging per image first makes the mean over processes equal to the mean
over the global batch, even if images differ in valid pixels. An image without a valid pixel contributes 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from mvde.config import LossConfig

SMALLEST_DEPTH_M = 1e-3


def valid_mask(target: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Bool mask shaped like ``target``: finite and within ``[min_depth, max_depth]`` metres."""
    return torch.isfinite(target) & (target >= min_depth) & (target <= max_depth)


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


def depth_loss(pred: Tensor, target: Tensor, valid: Tensor, weights: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum (scalar) and the unweighted terms by name; terms of weight 0 are skipped."""
    log_error = _LogError(pred, target, valid)  # shared by three terms: it costs as much as they do
    terms: dict[str, Callable[[], Tensor]] = {
        "silog": lambda: log_error.silog(weights.silog_lambda),
        "log_l1": log_error.l1,
        "l1": lambda: l1_loss(pred, target, valid),
        "berhu": lambda: berhu_loss(pred, target, valid),
        "gradient": lambda: log_error.gradient(weights.gradient_scales),
    }
    parts = {name: term() for name, term in terms.items() if getattr(weights, name) != 0}
    total = pred.new_zeros(())
    for name, value in parts.items():
        total = total + getattr(weights, name) * value
    return total, {name: value.detach() for name, value in parts.items()}


class _LogError:
    """Losses on ln pred - ln target (B, H, W), 0 where invalid; the difference is computed lazily."""

    def __init__(self, pred: Tensor, target: Tensor, valid: Tensor) -> None:
        self._arguments = pred, target, valid

    @cached_property
    def _difference(self) -> Tensor:
        pred, target, valid = self._arguments
        # Replace invalid pixels before the logarithm: 0 * inf would give NaN gradients.
        log_target = torch.where(valid, target, 1.0).clamp_min(SMALLEST_DEPTH_M).log()
        return torch.where(valid, pred, 1.0).clamp_min(SMALLEST_DEPTH_M).log() - log_target

    @cached_property
    def _mask(self) -> Tensor:
        return self._arguments[2].to(self._difference.dtype)

    @cached_property
    def _count(self) -> Tensor:
        return self._mask.sum(dim=(1, 2)).clamp_min(1)  # (B,)

    def silog(self, variance_focus: float) -> Tensor:
        """Scalar scale-invariant log loss: mean(g^2) - ``variance_focus`` * mean(g)^2 with g = ln pred - ln target.

        Eigen et al., 2014, eq. 4 (lambda there is ``variance_focus`` here; 1 ignores scale, 0 is squared log error).
        """
        g, count = self._difference, self._count
        mean = g.sum(dim=(1, 2)) / count
        return (g.square().sum(dim=(1, 2)) / count - variance_focus * mean.square()).mean()

    def l1(self) -> Tensor:
        """Scalar mean of |ln pred - ln target|."""
        return (self._difference.abs().sum(dim=(1, 2)) / self._count).mean()

    def gradient(self, num_scales: int) -> Tensor:
        """Scalar mean |dx| + |dy| of the log-depth difference, summed over scales of every 2^k-th pixel.

        Li and Snavely, 2018 (MegaDepth), eq. 4; as in MiDaS, scales are subsampled and a difference counts if both
        pixels are valid. Scales with fewer than two pixels on a side are skipped.
        """
        total = self._difference.new_zeros(())
        for scale in range(num_scales):
            step = 2**scale
            g, m = self._difference[:, ::step, ::step], self._mask[:, ::step, ::step]
            if min(g.shape[1:]) < 2:
                break
            dx, dy = (g[:, :, 1:] - g[:, :, :-1]).abs(), (g[:, 1:] - g[:, :-1]).abs()
            mx, my = m[:, :, 1:] * m[:, :, :-1], m[:, 1:] * m[:, :-1]
            sums = (dx * mx).sum(dim=(1, 2)) + (dy * my).sum(dim=(1, 2))
            total = total + (sums / m.sum(dim=(1, 2)).clamp_min(1)).mean()
        return total


def _difference(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, pred, 0.0) - torch.where(valid, target, 0.0)


def _per_image_mean(values: Tensor, valid: Tensor) -> Tensor:
    count = valid.sum(dim=(1, 2)).clamp_min(1)
    return (values * valid).sum(dim=(1, 2)) / count  # (B,)
