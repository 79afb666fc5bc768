"""The depth model: a tapped vision tower, a DPT decoder, and a head that states its unit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvde.backbones.siglip import (
    SiglipBackbone,
    image_normalization,
    pretrained_siglip,
    random_siglip,
    tower_spec,
)
from mvde.config import Config, DecoderConfig, VitConfig, check_resolution, load_config
from mvde.errors import CheckpointError, UsageError
from mvde.heads.dpt_decoder import DPTDecoder, MetricActivation, RelativeActivation

if TYPE_CHECKING:
    from omegaconf import DictConfig


class FixedDepthModel(nn.Module):
    """A depth model at one resolution, sharing the weights of the model that it was made from; what export traces."""

    def __init__(self, backbone: SiglipBackbone, decoder: nn.Module, activation: nn.Module, res: tuple[int, int]) -> None:
        super().__init__()
        self.backbone, self.decoder, self.activation, self.resolution = backbone, decoder, activation, res

    def forward(self, pixels: Tensor) -> Tensor:
        """Depth (B, H, W), from normalised RGB pixels (B, 3, H, W): ``(image / 255 - mean) / std``."""
        depth: Tensor = self.activation(self.decoder(self.backbone(pixels), self.resolution))
        return depth


class DepthModel(nn.Module):
    """Depth (B, H, W) from RGB images (B, 3, H, W): metres, or relative where ``decoder.scale_invariant`` is set."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config | DictConfig | Mapping[str, Any] | str | Path) -> None:
        super().__init__()
        self.config = load_config(config)
        vit = self.config.vit
        if vit.pretrained:
            backbone, spec = pretrained_siglip(vit.name, vit.tap_layers)
        else:
            spec = tower_spec(vit.name)
            backbone = random_siglip(spec, vit.tap_layers)
        self._assemble(backbone, spec, image_normalization(vit.name))

    def _assemble(self, backbone: SiglipBackbone, spec: dict[str, Any], normalization: Any) -> None:
        decoder = self.config.decoder
        self.tower_spec = spec
        self.backbone = backbone
        self.decoder = DPTDecoder(backbone.width, decoder.c_dec, decoder.blocks)
        self.activation = (
            RelativeActivation()
            if decoder.scale_invariant
            else MetricActivation(decoder.min_depth, decoder.max_depth)
        )
        self.register_buffer("mean", torch.tensor(normalization[0]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization[1]).view(1, 3, 1, 1), persistent=False)
        self.train(self.training)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.backbone.patch_size

    def forward(self, images: Tensor) -> Tensor:
        """Depth (B, H, W) float32: metres, or relative for a scale-invariant model.

        ``images``: (B, 3, H, W) RGB, uint8 or float in [0, 1], H and W multiples of the patch size; normalisation is
        done here. Raises :class:`UsageError` for another shape, dtype or range, :class:`ResolutionError` for sizes.
        """
        pixels = self.normalize(images)
        raw = self.decoder(self.backbone(pixels), (int(images.shape[2]), int(images.shape[3])))
        depth: Tensor = self.activation(raw)
        return depth

    def normalize(self, images: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W) float, from checked images (see :meth:`forward`)."""
        _check_images(images)
        check_resolution((int(images.shape[2]), int(images.shape[3])), self.patch_size)
        pixels = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return (pixels - self.mean) / self.std

    @torch.no_grad()
    def predict_depth(self, images: Tensor) -> Tensor:
        """Depth (B, H, W) as :meth:`forward` gives it, in evaluation mode and without gradients."""
        was_training = self.training
        self.eval()
        try:
            depth: Tensor = self(images)
        finally:
            self.train(was_training)
        return depth

    def compute_patch_stats(self, depth: Tensor) -> Tensor:
        """Patch statistics (B, N, 3), mean (m), variance (m2) and gradient (m/px), of depth (B, H, W)."""
        from mvde.stats import depth_to_patch_stats

        stats: Tensor = depth_to_patch_stats(depth, self.patch_size)
        return stats

    _compute_patch_stats = compute_patch_stats

    def at_resolution(self, resolution: tuple[int, int]) -> FixedDepthModel:
        """This model fixed to ``resolution`` (H, W), for export: position embeddings become a constant.

        Weights are shared, and put into evaluation mode. Raises :class:`ResolutionError` for sizes off the patch grid.
        """
        backbone = self.backbone.at_resolution(resolution)
        return FixedDepthModel(backbone, self.decoder, self.activation, resolution).eval()

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Nothing; writes the weights as safetensors of ``dtype`` with the configuration in the metadata."""
        from safetensors.torch import save_file

        tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in self.state_dict().items()}
        about = {
            "config": self.config.to_dict(),
            "tower": self.tower_spec,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        save_file(tensors, temporary, metadata={"format": "pt", "mvde": json.dumps(about)})
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> DepthModel:
        """Model with the weights and configuration of a file that :meth:`save` wrote, in float32, evaluation mode.

        Nothing else is read: no hub, no other file. Raises :class:`CheckpointError` for a file that is missing,
        damaged, foreign, or of another architecture.
        """
        about, tensors = _read_checkpoint(Path(path))
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.config = load_config(about["config"])
        backbone = random_siglip(about["tower"], model.config.vit.tap_layers)
        model._assemble(backbone, about["tower"], (about["mean"], about["std"]))
        model._load_tensors(tensors, Path(path))
        return model.eval()

    def load_weights(self, path: str | Path) -> None:
        """Nothing; takes the weights of a checkpoint of the same architecture, whatever its configuration says."""
        self._load_tensors(_read_checkpoint(Path(path))[1], Path(path))

    def _load_tensors(self, tensors: dict[str, Tensor], path: Path) -> None:
        own = self.state_dict()
        for key in sorted(own.keys() | tensors.keys()):
            here = tuple(own[key].shape) if key in own else "absent"
            there = tuple(tensors[key].shape) if key in tensors else "absent"
            if here != there:
                raise CheckpointError(
                    f"{path} is of another architecture: {key} is {there} in the file and {here} in the model; "
                    f"use the configuration that it was trained with"
                )
        self.load_state_dict({key: value.float() for key, value in tensors.items()})


class DepthModelFactory:
    """Depth models from plain arguments instead of a configuration."""

    @staticmethod
    def create_siglip_model(
        model_name: str = "google/siglip-base-patch16-384",
        image_size: int | tuple[int, int] = 896,
        tap_layers: tuple[int, ...] = (-18, -12, -6, -2),
        decoder_channels: int = 256,
        decoder_blocks: int = 4,
        pretrained: bool = True,
        scale_invariant: bool = False,
        min_depth: float = 0.1,
        max_depth: float = 10.0,
    ) -> DepthModel:
        """Model on the SigLIP tower ``model_name`` (hub name, local directory, or a known name), evaluation mode.

        With ``pretrained=False`` the same architecture gets random weights, and no network is needed. Depths are in
        metres; ``image_size`` is the native resolution, (H, W) or one number for a square.
        """
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        vit = VitConfig(model_name, tuple(tap_layers), image_size=size, pretrained=pretrained)
        decoder = DecoderConfig(decoder_channels, decoder_blocks, scale_invariant, min_depth, max_depth)
        return DepthModel(Config(name=Path(model_name).name, vit=vit, decoder=decoder)).eval()


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"images must be (B, 3, H, W) RGB, but got {tuple(images.shape)}")
    if images.dtype == torch.uint8 or torch.compiler.is_compiling():
        return
    if not images.is_floating_point():
        raise UsageError(f"images must be uint8, or float in [0, 1], but got {images.dtype}")
    low, high = (float(bound) for bound in torch.aminmax(images.detach()))
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails; resampling may overshoot a little
        raise UsageError(f"float images must lie in [0, 1], but got {low:.4g} to {high:.4g}; divide by 255")


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get("mvde")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); fetch or save it again") from error
    if about is None:
        raise CheckpointError(f"{path} holds no mvde configuration; only files saved by mvde can be loaded")
    plain: dict[str, Any] = json.loads(about)
    return plain, tensors
