"""Depth models: RGB images in, depth out; normalisation and output activation are part of the model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvde.backbones.huggingface import DepthKind, HuggingFaceDepth, load_huggingface_depth
from mvde.backbones.siglip import SiglipBackbone, image_normalization, pretrained_siglip, random_siglip, tower_spec
from mvde.checkpoint import CheckpointHeader, check_architecture, read_checkpoint, write_checkpoint
from mvde.config import DEFAULT_TAPS, Config, DecoderConfig, VitConfig, load_config
from mvde.errors import CheckpointError, ConfigError, UsageError
from mvde.heads.dpt_decoder import DPTDecoder, MetricActivation, RelativeActivation
from mvde.resolution import check_resolution
from mvde.stats import DEFAULT_STATS, depth_to_patch_stats
from mvde.vector_math import resolve_vector_math

if TYPE_CHECKING:
    from omegaconf import DictConfig

resolve_vector_math()  # before a model makes its first multi-threaded call

_RANGE_SLACK = 1e-2  # bicubic resampling overshoots [0, 1] by this much; a 0..255 image by far more


class ImageDepthModel(nn.Module, ABC):
    """Base class of depth models: input checks, normalisation, prediction and patch statistics."""

    config: Config
    mean: Tensor
    std: Tensor

    def _set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.tensor(tuple(values), dtype=torch.float32, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a patch in pixels."""

    @abstractmethod
    def depth_from_pixels(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W) from normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def at_resolution(self, resolution: tuple[int, int]) -> nn.Module:
        """Build a module from normalised pixels (B, 3, H, W) to depth (B, H, W) at a fixed resolution, for export.

        Its position embeddings are constants, its weights are shared where possible, and it is in evaluation mode.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Predict depth (B, H, W) float32 in metres, or relative for a scale-invariant model.

        ``images``: (B, 3, H, W) RGB, uint8 or float in [0, 1], not normalised, H and W multiples of the patch size.
        Raises :class:`UsageError` for another shape, dtype or range, :class:`ResolutionError` for other sizes.
        """
        return self.depth_from_pixels(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise images to pixels (B, 3, H, W), ``(image in [0, 1] - mean) / std``; raises as :meth:`forward`."""
        _check_images(images)
        check_resolution((int(images.shape[2]), int(images.shape[3])), self.patch_size)
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


class DepthModel(ImageDepthModel):
    """SigLIP tower, DPT decoder and a metric head (relative if ``decoder.scale_invariant`` is set).

    ``config`` is a :class:`Config`, an OmegaConf object, a mapping, or the path of a YAML file. Raises
    :class:`ConfigError` for an inconsistent configuration, :class:`CheckpointError` if its pretrained weights are
    unavailable.
    """

    def __init__(self, config: Config | DictConfig | Mapping[str, Any] | str | Path) -> None:
        super().__init__()
        self.config = load_config(config)
        vit = self.config.vit
        if vit.pretrained:
            backbone, spec = pretrained_siglip(vit.name, vit.tap_layers)
        else:
            spec = tower_spec(vit.name)
            backbone = random_siglip(spec, vit.tap_layers)
        self._assemble(backbone, spec, *image_normalization(vit.name))

    def _assemble(
        self, backbone: SiglipBackbone, spec: dict[str, Any], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        head = self.config.decoder
        self.tower_spec = spec
        self.backbone = backbone
        self.decoder = DPTDecoder(backbone.width, head.c_dec, head.blocks)
        self.activation = _activation(head)
        self._set_normalization(mean, std)
        self.train(self.training)

    def set_camera(self, focal: float) -> None:
        """Convert the model to a camera of relative focal length ``focal`` (see :mod:`mvde.camera`).

        Scales depth and the configured bounds by the ratio to the current focal length. Raises :class:`UsageError` if
        the model has no canonical camera or ``focal`` is not positive and finite.
        """
        decoder = self.config.decoder
        if decoder.canonical_focal is None:
            raise UsageError(
                f"the model {self.config.name!r} was trained without a canonical camera (decoder.canonical_focal), so "
                "its depth cannot be converted to another field of view; leave the camera out"
            )
        if not (focal > 0 and math.isfinite(focal)):
            raise UsageError(f"a relative focal length is a positive number, but got {focal!r}")
        factor = focal / decoder.canonical_focal
        decoder = replace(
            decoder,
            min_depth=decoder.min_depth * factor,
            max_depth=decoder.max_depth * factor,
            canonical_focal=focal,
        )
        self.config = replace(self.config, decoder=decoder)
        self.activation = _activation(decoder)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.backbone.patch_size

    def depth_from_pixels(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W) from normalised pixels (B, 3, H, W)."""
        resolution = (int(pixels.shape[2]), int(pixels.shape[3]))
        depth: Tensor = self.activation(self.decoder(self.backbone(pixels), resolution))
        return depth

    def at_resolution(self, resolution: tuple[int, int]) -> nn.Module:
        """Build a module from normalised pixels to depth at ``resolution`` (H, W) that shares this model's weights.

        Sets the shared layers to evaluation mode. Raises :class:`ResolutionError` for sizes off the patch grid.
        """
        backbone = self.backbone.at_resolution(resolution)
        return FixedDepthModel(backbone, self.decoder, self.activation, resolution).eval()

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Save the weights as safetensors of ``dtype`` with the configuration in the metadata.

        Raises :class:`OutputError` if the file cannot be written, :class:`UsageError` while LoRA adapters are attached
        (they are not part of the architecture; merge them first).
        """
        tensors = self.state_dict()
        if any(".lora_" in key for key in tensors):
            raise UsageError("the model has LoRA adapters; call mvde.heads.lora.merge_lora(model) before saving it")
        header = CheckpointHeader(
            config=self.config.to_dict(),
            tower=self.tower_spec,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            taps=self.backbone.taps,
        )
        write_checkpoint(Path(path), header, tensors, dtype)

    @classmethod
    def load(cls, path: str | Path) -> DepthModel:
        """Load a model written by :meth:`save`, in float32 and evaluation mode, from this file alone (no hub access).

        Raises :class:`CheckpointError` if the file is missing, corrupted, foreign, or its tensors do not fit its
        configuration.
        """
        path = Path(path)
        header, tensors = read_checkpoint(path)
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        try:
            model.config = load_config(header.config)
            with torch.device("meta"):  # the weights are replaced below; do not allocate them
                taps = model.config.vit.tap_layers if header.taps is None else header.taps
                backbone = random_siglip(dict(header.tower), tuple(taps))
                model._assemble(backbone, dict(header.tower), header.mean, header.std)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} holds a configuration that this version cannot use: {error}") from error
        check_architecture(path, tensors, model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return model.eval()

    def load_weights(self, path: str | Path) -> None:
        """Load the weights of a checkpoint of the same architecture, keeping this configuration.

        Raises :class:`CheckpointError` as :meth:`load` does, naming the first mismatched tensor.
        """
        _, tensors = read_checkpoint(Path(path))
        check_architecture(Path(path), tensors, self.state_dict())
        self.load_state_dict(tensors)


class FixedDepthModel(nn.Module):
    """Depth model at a fixed resolution, sharing the weights of its source model; traced by the exporter."""

    def __init__(
        self, backbone: SiglipBackbone, decoder: DPTDecoder, activation: nn.Module, resolution: tuple[int, int]
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.activation = backbone, decoder, activation
        self.resolution = resolution

    def forward(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W) from normalised RGB pixels (B, 3, H, W): ``(image / 255 - mean) / std``."""
        depth: Tensor = self.activation(self.decoder(self.backbone(pixels), self.resolution))
        return depth


class HuggingFaceDepthModel(ImageDepthModel):
    """Adapter from a transformers depth model (DPT, Depth Anything, …) to :class:`ImageDepthModel`."""

    def __init__(self, depth: HuggingFaceDepth, config: Config, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.config = config
        self.depth = depth
        self._set_normalization(mean, std)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.depth.patch_size

    def depth_from_pixels(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W) from normalised pixels (B, 3, H, W)."""
        depth: Tensor = self.depth(pixels)
        return depth

    def at_resolution(self, resolution: tuple[int, int]) -> nn.Module:
        """Copy the model for a fixed ``resolution`` (H, W), with a constant position embedding."""
        return self.depth.at_resolution(resolution)


class DepthModelFactory:
    """Factory of depth models from plain arguments instead of a configuration."""

    @staticmethod
    def create_siglip_model(
        model_name: str = "google/siglip-base-patch16-384",
        image_size: int | tuple[int, int] = 896,
        tap_layers: Sequence[int] = DEFAULT_TAPS,
        decoder_channels: int = 256,
        decoder_blocks: int = 4,
        pretrained: bool = True,
        scale_invariant: bool = False,
        min_depth: float = 0.1,
        max_depth: float = 10.0,
    ) -> DepthModel:
        """Create a model on the SigLIP tower ``model_name`` (hub name, local directory or known name), in eval mode.

        With ``pretrained=False`` the weights are random and no network access is needed. Depths are in metres;
        ``image_size`` is the native resolution, (H, W) or one number for a square. Raises as :class:`DepthModel`.
        """
        vit = VitConfig(model_name, tuple(tap_layers), image_size=_pair(image_size), pretrained=pretrained)
        decoder = DecoderConfig(decoder_channels, decoder_blocks, scale_invariant, min_depth, max_depth)
        model = DepthModel(Config(name=Path(model_name).name, vit=vit, decoder=decoder))
        check_resolution(vit.image_size, model.patch_size)
        return model.eval()

    @staticmethod
    def create_huggingface_model(
        model_name: str, image_size: int | tuple[int, int], kind: DepthKind | None = None
    ) -> HuggingFaceDepthModel:
        """Create a model from transformers' ``AutoModelForDepthEstimation`` (hub name or directory), in eval mode.

        ``kind`` is the kind of depth, if the model's configuration does not state it. Raises :class:`CheckpointError`
        if the weights are unavailable or do not belong to a depth model.
        """
        depth, mean, std = load_huggingface_depth(model_name, kind)
        relative = depth.kind is not DepthKind.METRIC
        vit = VitConfig(model_name, image_size=_pair(image_size))
        decoder = DecoderConfig(scale_invariant=relative, max_depth=depth.max_depth_m)
        check_resolution(vit.image_size, depth.patch_size)
        config = Config(name=Path(model_name).name, vit=vit, decoder=decoder)
        return HuggingFaceDepthModel(depth, config, mean, std).eval()


def _activation(decoder: DecoderConfig) -> MetricActivation | RelativeActivation:
    return RelativeActivation() if decoder.scale_invariant else MetricActivation(decoder.min_depth, decoder.max_depth)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


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
