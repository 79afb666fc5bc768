"""Base class of depth models in PyTorch: RGB images in, the map that their description explains out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mvde.errors import UsageError
from mvde.resolution import check_resolution
from mvde.stats import DEFAULT_STATS, depth_to_patch_stats
from mvde.vector_math import resolve_vector_math

if TYPE_CHECKING:
    from mvde.description import ModelDescription

resolve_vector_math()  # before a model makes its first multi-threaded call

_RANGE_SLACK = 1e-2  # bicubic resampling overshoots [0, 1] by this much; a 0..255 image by far more


class ImageDepthModel(nn.Module, ABC):
    """Base class of depth models: input checks, normalisation, prediction and patch statistics."""

    mean: Tensor
    std: Tensor

    def _set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.tensor(tuple(values), dtype=torch.float32, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a patch of the statistics in pixels."""

    @abstractmethod
    def describe(self) -> ModelDescription:
        """Describe the meaning of the map, the pixels, the sizes and the origin of the model."""

    @abstractmethod
    def num_encoder_weights(self) -> int:
        """Count the encoder's weights, from which the cost of a call is estimated."""

    @abstractmethod
    def depth_from_pixels(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W) from normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def at_resolution(self, resolution: tuple[int, int]) -> nn.Module:
        """Build a module from normalised pixels (B, 3, H, W) to depth (B, H, W) at a fixed resolution, for export.

        Its position embeddings are constants, its weights are shared where possible, and it is in evaluation mode.
        """

    def check_size(self, resolution: tuple[int, int]) -> None:
        """Raise :class:`ResolutionError` for an image size (H, W) that the model cannot take."""
        check_resolution(resolution, self.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Predict the map (B, H, W), float32: metres, or as ``describe().depth_kind`` says.

        ``images``: (B, 3, H, W) RGB, uint8 or float in [0, 1], not normalised, H and W multiples of the patch size.
        Raises :class:`UsageError` for another shape, dtype or range, :class:`ResolutionError` for other sizes.
        """
        return self.depth_from_pixels(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise images to pixels (B, 3, H, W), ``(image in [0, 1] - mean) / std``; raises as :meth:`forward`."""
        _check_images(images)
        self.check_size((int(images.shape[2]), int(images.shape[3])))
        unit = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return (unit - self.mean) / self.std

    @torch.no_grad()
    def predict_depth(self, images: Tensor) -> Tensor:
        """Predict depth (B, H, W) as :meth:`forward` does, in evaluation mode and without gradients."""
        was_training = self.training
        self.eval()
        try:
            depth: Tensor = self(images)
        finally:
            self.train(was_training)
        return depth

    def compute_patch_stats(self, depth: Tensor, stats: Sequence[str] = DEFAULT_STATS) -> Tensor:
        """Statistics (B, N, S) float32 per patch of ``depth`` (B, H, W): mean (m), variance (m²), gradient (m/px).

        See :func:`mvde.stats.depth_to_patch_stats` for other columns and the errors raised.
        """
        return depth_to_patch_stats(depth, self.patch_size, stats)

    def _compute_patch_stats(self, depth: Tensor) -> Tensor:
        """Former name of :meth:`compute_patch_stats`."""
        return self.compute_patch_stats(depth)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"images must be (B, 3, H, W) RGB, but got {tuple(images.shape)}")
    if images.dtype == torch.uint8 or torch.compiler.is_compiling():
        return
    if not images.is_floating_point():
        raise UsageError(f"images must be uint8, or float in [0, 1], but got {images.dtype}")
    low, high = (float(bound) for bound in torch.aminmax(images.detach())) if images.numel() else (0.0, 0.0)
    if not (low >= -_RANGE_SLACK and high <= 1 + _RANGE_SLACK):  # rejects NaN, too
        raise UsageError(
            f"float images must lie in [0, 1], but got {low:.4g} to {high:.4g}; divide 8-bit values by 255"
        )
