"""Depth of a photograph as transformers computes it: processor, model, post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForDepthEstimation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil
from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil

from mvde.contract import DepthKind
from tests.families.cases import Case, Size

_PROCESSORS: dict[str, Any] = {
    "depth_anything": DPTImageProcessorPil,
    "dpt": DPTImageProcessorPil,
    "glpn": GLPNImageProcessorPil,
    "zoedepth": ZoeDepthImageProcessorPil,
}
_WITHOUT_PROCESSOR = ("depth_pro", "tipsv2_dpt")
"""Families whose processors need torchvision; their few steps are written out below."""


def reference_map(folder: Path, photo: np.ndarray, case: Case, network: Size, target: Size | None = None) -> np.ndarray:
    """Map (H, W) that transformers gives for a photograph (h, w, 3), uint8, at the size ``target``, by default its own.

    It is the inverse map of Depth Pro unless the case's kind is metric. The case's ``domain`` replaces the vote of
    ZoeDepth's classifier. ``network`` (H, W) is what the processors that are written out here resize to; the others
    find it themselves. ZoeDepth's map has the photograph's size.
    """
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    frame = (photo.shape[0], photo.shape[1])
    with torch.no_grad():
        if config.model_type in _WITHOUT_PROCESSOR:
            output = model(pixel_values=_pixels(config.model_type, photo, network))
            return _without_processor(output, target or frame, case.options.get("kind")).numpy()
        processor = _PROCESSORS[config.model_type].from_pretrained(folder)
        if "domain" in case.options:
            _vote_for(model, case.options["domain"])
        output = model(**processor(images=photo, return_tensors="pt"))
        if config.model_type == "zoedepth":
            return _unpadded(output.predicted_depth, frame).numpy()
        (found,) = processor.post_process_depth_estimation(output, target_sizes=[target or frame])
        depth: np.ndarray = found["predicted_depth"].numpy()
        return depth


def bilinear_reference(folder: Path, photo: np.ndarray, case: Case, network: Size) -> tuple[np.ndarray, np.ndarray]:
    """Maps of transformers at the size of the network, and that map resized to the photograph as mvde does: bilinearly.

    transformers resizes most families' maps bicubically, which mvde does not do since it overshoots. ZoeDepth's
    processor works on the frame and mvde's graph on the network's input, so its photograph is resized first.
    """
    frame = (photo.shape[0], photo.shape[1])
    if case.model.startswith("zoedepth"):
        photo = np.asarray(Image.fromarray(photo).resize(network[::-1], Image.Resampling.BILINEAR))
    own = reference_map(folder, photo, case, network, network)
    resized = F.interpolate(torch.from_numpy(own)[None, None], size=frame, mode="bilinear", align_corners=False)
    return own, resized[0, 0].numpy()


def _pixels(model_type: str, photo: np.ndarray, network: Size) -> torch.Tensor:
    """Pixels of Depth Pro (normalised, then resized without antialiasing) and TIPSv2 (bytes resized with it)."""
    images = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None]
    if model_type == "depth_pro":
        return F.interpolate((images.float() / 255 - 0.5) / 0.5, size=network, mode="bilinear", antialias=False)
    return F.interpolate(images, size=network, mode="bilinear", antialias=True).float() / 255


def _without_processor(output: Any, size: Size, kind: DepthKind | None) -> torch.Tensor:
    """Post-processing of Depth Pro and TIPSv2; for Depth Pro without a field of view, the map itself."""
    depth = output.predicted_depth
    if kind is DepthKind.METRIC and getattr(output, "field_of_view", None) is not None:
        focal = 0.5 * size[1] / torch.tan(0.5 * torch.deg2rad(output.field_of_view))
        depth = depth * size[1] / focal
        depth = F.interpolate(depth[:, None], size=size, mode="bilinear")[:, 0]
        return 1 / depth.clamp(1e-4, 1e4)[0]
    return F.interpolate(depth[:, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _unpadded(depth: torch.Tensor, size: Size) -> torch.Tensor:
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
