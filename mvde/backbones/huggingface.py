"""Other depth models of transformers (DPT, Depth Anything, …), for comparison and export."""

from __future__ import annotations

import copy
import enum
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvde.backbones.hub import check_complete, image_normalization, load_pretrained
from mvde.errors import CheckpointError, ResolutionError
from mvde.resolution import check_resolution

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LARGEST_INVERSE = 1e4  # inverse depth of 0 means infinitely far; keeps depth finite
_POSITION_METHODS = ("interpolate_pos_encoding", "_resize_pos_embed")


class DepthKind(enum.Enum):
    """Meaning of a network's output."""

    METRIC = "metric"
    """Depth in metres."""
    INVERSE = "inverse"
    """Relative inverse depth of MiDaS-style networks: larger is nearer, scale and shift unknown."""


class HuggingFaceDepth(nn.Module):
    """Depth (B, H, W) from normalised pixels (B, 3, H, W): metres, or the reciprocal of relative inverse depth.

    Raises :class:`ResolutionError` for sizes that are not multiples of the patch size or not supported by the network.
    """

    def __init__(self, network: nn.Module, kind: DepthKind, patch_size: int, max_depth_m: float) -> None:
        super().__init__()
        self.network = network
        self.kind = kind
        self.patch_size = patch_size
        self.max_depth_m = max_depth_m

    def forward(self, pixels: Tensor) -> Tensor:
        """Return depth (B, H, W) at the resolution of ``pixels``."""
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        self._check_size(size)
        output: Tensor = self.network(pixel_values=pixels).predicted_depth  # (B, h, w)
        if output.shape[1:] != pixels.shape[2:]:
            output = F.interpolate(output[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        if self.kind is DepthKind.METRIC:
            return output.float()
        return 1.0 / output.float().clamp(min=1 / _LARGEST_INVERSE)

    def at_resolution(self, resolution: tuple[int, int]) -> HuggingFaceDepth:
        """Copy with the position embeddings resampled to ``resolution`` (H, W) as constants."""
        self._check_size(resolution)
        fixed = copy.deepcopy(self).eval()
        parameter = next(fixed.parameters())
        pixels = torch.zeros(1, 3, *resolution, dtype=parameter.dtype, device=parameter.device)
        frozen = [module for module in fixed.modules() if _freeze_position(module)]
        with torch.no_grad():
            fixed(pixels)
        for module in frozen:
            _replay_position(module)
        return fixed

    def _check_size(self, size: tuple[int, int]) -> None:
        check_resolution(size, self.patch_size)
        config: Any = self.network.config
        # transformers reassembles tokens of DPT's own ViT to a square, whatever the image's aspect ratio.
        if size[0] != size[1] and config.model_type == "dpt" and config.backbone_config is None:
            raise ResolutionError(
                f"DPT in transformers takes square images only, but got {size[0]}x{size[1]}; "
                f"use {size[0]}x{size[0]} or {size[1]}x{size[1]}"
            )


def load_huggingface_depth(
    name: str, kind: DepthKind | None
) -> tuple[HuggingFaceDepth, tuple[float, ...], tuple[float, ...]]:
    """Load a depth network from a hub name or local directory; return it with its pixel mean and deviation.

    Without ``kind``, it is metric if the configuration says so (``depth_estimation_type``), else inverse. Raises
    :class:`CheckpointError` if the weights are unavailable or not of a depth model.
    """
    from transformers import AutoModelForDepthEstimation

    def load(**where: Any) -> tuple[nn.Module, dict[str, Any]]:
        loaded: tuple[nn.Module, dict[str, Any]] = AutoModelForDepthEstimation.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **where
        )
        return loaded

    way_out = "give a local directory of a depth model that transformers can load"
    network, loading_info = load_pretrained(name, load, way_out)
    check_complete(name, loading_info)
    config: Any = network.config
    if kind is None:
        kind = DepthKind.METRIC if _is_metric(config) else DepthKind.INVERSE
    max_depth_m = float(getattr(config, "max_depth", None) or 10.0)
    mean, std = image_normalization(name, (IMAGENET_MEAN, IMAGENET_STD))
    return HuggingFaceDepth(network, kind, _patch_size(name, config), max_depth_m), mean, std


def _is_metric(config: Any) -> bool:
    return getattr(config, "depth_estimation_type", None) == "metric"


def _patch_size(name: str, config: Any) -> int:
    size = getattr(config, "patch_size", None) or getattr(getattr(config, "backbone_config", None), "patch_size", None)
    if not isinstance(size, int):
        raise CheckpointError(
            f"{name!r} is not a transformer with one patch size (got {size!r}); use a ViT-based model"
        )
    return size


def _freeze_position(module: nn.Module) -> bool:
    """Record the module's resampled position embedding; return whether it has one."""
    for method in _POSITION_METHODS:
        resample = getattr(module, method, None)
        if callable(resample):

            def recording(*args: Any, _resample: Any = resample, _method: str = method, **kwargs: Any) -> Tensor:
                position: Tensor = _resample(*args, **kwargs).detach().clone()
                module.register_buffer("fixed_position", position, persistent=False)
                module.fixed_method = _method  # type: ignore[assignment]
                return position

            setattr(module, method, recording)
            return True
    return False


def _replay_position(module: nn.Module) -> None:
    """Make the module return its recorded position embedding from now on.

    Bound as a method, so that a copy of the module, as made by the exporter, returns the copy's tensor.
    """
    if hasattr(module, "fixed_position"):
        setattr(module, str(module.fixed_method), MethodType(_recorded_position, module))


def _recorded_position(module: Any, *args: Any, **kwargs: Any) -> Tensor:
    position: Tensor = module.fixed_position
    return position
