"""Depth models of mvde: RGB images in, depth out; normalisation and output activation are part of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvde.backbones.loading import image_normalization, pretrained_tower, random_tower, tower_spec, whole_patches
from mvde.backbones.tower import TowerBackbone
from mvde.checkpoint import CheckpointHeader, check_architecture, read_checkpoint, write_checkpoint
from mvde.config import DEFAULT_TAPS, Config, DecoderConfig, VitConfig, load_config
from mvde.contract import DepthKind, FocalConvention, stretched
from mvde.description import ModelDescription, Origin, SizeRule, Sizing
from mvde.errors import CheckpointError, ConfigError, UsageError
from mvde.heads.dpt_decoder import DPTDecoder, MetricActivation, RelativeActivation
from mvde.image_model import ImageDepthModel
from mvde.resolution import check_resolution

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mvde.families.network import TransformersDepthModel


class DepthModel(ImageDepthModel):
    """Vision tower, DPT decoder and a metric head (relative if ``decoder.scale_invariant`` is set).

    ``config`` is a :class:`Config`, an OmegaConf object, a mapping, or the path of a YAML file. Raises
    :class:`ConfigError` for an inconsistent configuration, :class:`CheckpointError` if its pretrained weights are
    unavailable.
    """

    config: Config

    def __init__(self, config: Config | DictConfig | Mapping[str, Any] | str | Path) -> None:
        super().__init__()
        self.config = load_config(config)
        vit = self.config.vit
        if vit.pretrained:
            backbone, spec = pretrained_tower(vit.name, vit.tap_layers)
        else:
            spec = tower_spec(vit.name)
            backbone = random_tower(spec, vit.tap_layers)
        native = whole_patches(vit.image_size, spec)
        self.config = replace(self.config, vit=replace(vit, image_size=native))
        self._assemble(backbone, spec, *image_normalization(vit.name, spec))

    def _assemble(
        self, backbone: TowerBackbone, spec: dict[str, Any], mean: Sequence[float], std: Sequence[float]
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

    def describe(self) -> ModelDescription:
        """Describe the meaning of the map, the pixels, the sizes and the origin of the model."""
        decoder, patch_size = self.config.decoder, self.patch_size
        kind = DepthKind.METRIC if decoder.canonical_focal is None else DepthKind.METRIC_FOCAL
        kind = DepthKind.SCALE_INVARIANT if decoder.scale_invariant else kind
        return ModelDescription(
            name=self.config.name,
            depth_kind=kind,
            valid_range=(decoder.min_depth, decoder.max_depth),
            preprocess=stretched(_channels(self.mean), _channels(self.std)),
            stats_patch=patch_size,
            sizing=Sizing(size=self.config.vit.image_size, multiple=patch_size, rule=SizeRule.STRETCH),
            origin=Origin(kind="mvde", name=self.config.name, config=self.config.to_dict()),
            canonical_focal=decoder.canonical_focal if kind.has_canonical_camera else None,
            focal_convention=FocalConvention.GEOMETRIC if kind.has_canonical_camera else None,
        )

    def num_encoder_weights(self) -> int:
        """Count the tower's weights."""
        return sum(parameter.numel() for parameter in self.backbone.parameters())

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
                backbone = random_tower(dict(header.tower), tuple(taps))
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
        self, backbone: TowerBackbone, decoder: DPTDecoder, activation: nn.Module, resolution: tuple[int, int]
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.activation = backbone, decoder, activation
        self.resolution = resolution

    def forward(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W) from normalised RGB pixels (B, 3, H, W): ``(image / 255 - mean) / std``."""
        depth: Tensor = self.activation(self.decoder(self.backbone(pixels), self.resolution))
        return depth


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
        """Create a model on the tower ``model_name`` (hub name, local directory or known name), in eval mode.

        With ``pretrained=False`` the weights are random and no network access is needed. Depths are in metres;
        ``image_size`` is the native resolution, (H, W) or one number for a square. Raises as :class:`DepthModel`.
        """
        vit = VitConfig(model_name, tuple(tap_layers), image_size=_pair(image_size), pretrained=pretrained)
        decoder = DecoderConfig(decoder_channels, decoder_blocks, scale_invariant, min_depth, max_depth)
        model = DepthModel(Config(name=Path(model_name).name, vit=vit, decoder=decoder))
        check_resolution(model.config.vit.image_size, model.patch_size)
        return model.eval()

    @staticmethod
    def create_huggingface_model(
        model_name: str,
        image_size: int | tuple[int, int] | None = None,
        kind: DepthKind | None = None,
        *,
        revision: str | None = None,
        domain: str | None = None,
    ) -> TransformersDepthModel:
        """Create a model from transformers' ``AutoModelForDepthEstimation`` (hub name or directory), in eval mode.

        ``kind`` is the kind of depth, if neither the model's configuration nor mvde's table of checkpoints states it;
        ``image_size`` a size to check, ``domain`` the head of a ZoeDepth model with several. Raises
        :class:`CheckpointError` if the weights are unavailable or not of a depth model, :class:`UsageError` for a kind
        that is unknown or contradicts the model.
        """
        from mvde.families import load_family_model

        model = load_family_model(model_name, kind=kind, revision=revision, domain=domain)
        if image_size is not None:
            model.check_size(_pair(image_size))
        return model


def _channels(tensor: Tensor) -> tuple[float, float, float]:
    red, green, blue = (float(f"{value:.7g}") for value in tensor.flatten().tolist())
    return red, green, blue


def _activation(decoder: DecoderConfig) -> MetricActivation | RelativeActivation:
    return RelativeActivation() if decoder.scale_invariant else MetricActivation(decoder.min_depth, decoder.max_depth)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
