"""Depth of a photograph as transformers computes it: processor, model, post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForDepthEstimation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil
from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

from mvde.contract import DepthKind

_PROCESSORS: dict[str, Any] = {
    "depth_anything": DPTImageProcessorPil,
    "dpt": DPTImageProcessorPil,
    "glpn": GLPNImageProcessorPil,
    "zoedepth": ZoeDepthImageProcessorPil,
}
_NORMALISATION = {"depth_pro": (0.5, 0.5), "tipsv2_dpt": (0.0, 1.0)}
"""Mean and deviation of the families whose processors need torchvision; their few steps are written out below."""


def reference_map(
    folder: Path, photo: np.ndarray, kind: DepthKind | None = None, domain: str | None = None
) -> np.ndarray:
    """Map (H, W) at the photograph's size (H, W, 3), uint8; the inverse map of Depth Pro unless ``kind`` is metric.

    ``domain`` replaces the vote of ZoeDepth's classifier.
    """
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    size = (photo.shape[0], photo.shape[1])
    with torch.no_grad():
        if config.model_type in _NORMALISATION:
            mean, std = _NORMALISATION[config.model_type]
            pixels = ((torch.from_numpy(photo.copy()).float() / 255 - mean) / std).permute(2, 0, 1)[None]
            return _without_processor(model(pixel_values=pixels), size, kind).numpy()
        processor = _PROCESSORS[config.model_type].from_pretrained(folder)
        if domain is not None:
            _vote_for(model, domain)
        output = model(**processor(images=photo, return_tensors="pt"))
        if config.model_type == "zoedepth":
            return _unpadded(output.predicted_depth, size).numpy()
        (found,) = processor.post_process_depth_estimation(output, target_sizes=[size])
        return found["predicted_depth"].numpy()


def _without_processor(output: Any, size: tuple[int, int], kind: DepthKind | None) -> torch.Tensor:
    """Post-processing of Depth Pro and TIPSv2; for Depth Pro without a field of view, the map itself."""
    depth = output.predicted_depth
    if kind is DepthKind.METRIC and getattr(output, "field_of_view", None) is not None:
        focal = 0.5 * size[1] / torch.tan(0.5 * torch.deg2rad(output.field_of_view))
        depth = depth * size[1] / focal
        depth = F.interpolate(depth[:, None], size=size, mode="bilinear")[:, 0]
        return 1 / depth.clamp(1e-4, 1e4)[0]
    return F.interpolate(depth[:, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _unpadded(depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Post-processing of ZoeDepth, whose own needs torchvision; without flipping."""
    top, left = (int(np.sqrt(side / 2) * 3) for side in size)
    whole = (size[0] + 2 * top, size[1] + 2 * left)
    depth = F.interpolate(depth[:, None], whole, mode="bicubic", align_corners=False, antialias=False)[0, 0]
    return depth[top:-top, left:-left]


def _vote_for(model: Any, domain: str) -> None:
    names = [one["name"] for one in model.config.bin_configurations]
    logits = torch.full((1, len(names)), -100.0)
    logits[0, names.index(domain)] = 100.0
    model.metric_head.mlp_classifier.forward = lambda embedding: logits
