"""From picture to language token: the tokens that a spot of the picture moves are those that its depth moves.

Nothing here knows how a model crops, tiles, pads, orders or merges patches. The towers' attention is taken out, so that
a patch moves its own token alone; the pictures pass each model's own image processor.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from mvde.vlm import DepthConfig, add_depth, embedder_of, given_depth
from mvde.vlm.processor import DepthProcessor
from tests.vlm import conftest as models
from tests.vlm.tiny_llava import depth_map, image_processor_of

SQUARE = {"size": {"height": 64, "width": 64}}
CROP = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
SPLIT = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
FLAT = {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16}}
PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 32,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
CASES = {
    "llava": ("SiglipImageProcessor", SQUARE),
    "llava_clip": ("CLIPImageProcessor", CROP),
    "llava_next": ("LlavaNextImageProcessor", {**CROP, **models.GRIDS}),
    "llava_onevision": ("LlavaOnevisionImageProcessor", {**SQUARE, **models.GRIDS}),
    "paligemma": ("SiglipImageProcessor", SQUARE),
    "gemma3": ("Gemma3ImageProcessor", {**SQUARE, **PAN_AND_SCAN}),
    "aya_vision": ("GotOcr2ImageProcessor", {**SQUARE, "crop_to_patches": True}),
    "idefics3": ("Idefics3ImageProcessor", SPLIT),
    "smolvlm": ("SmolVLMImageProcessor", SPLIT),
    "internvl": ("GotOcr2ImageProcessor", {**SQUARE, "crop_to_patches": True}),
    "deepseek_vl": ("DeepseekVLImageProcessor", SQUARE),
    "qwen2_vl": ("Qwen2VLImageProcessor", {**FLAT, "patch_size": 14}),
    "qwen2_5_vl": ("Qwen2VLImageProcessor", {**FLAT, "patch_size": 14}),
    "qwen3_vl": ("Qwen2VLImageProcessor", {**FLAT, "patch_size": 16}),
    "lfm2_vl": ("Lfm2VlImageProcessor", {"max_image_tokens": 16, "min_image_tokens": 4, "do_image_splitting": False}),
}
SIZES = [(128, 100), (90, 150)]
SPOTS = [(slice(40, 52), slice(30, 50)), (slice(70, 90), slice(140, 150))]


@pytest.mark.parametrize("name", CASES)
def test_a_spots_depth_moves_the_tokens_that_its_pixels_move(name: str) -> None:
    model, processor = set_up(name)
    pictures = [np.random.default_rng(index).integers(0, 128, (*size, 3), np.uint8) for index, size in enumerate(SIZES)]
    depths = [depth_map(size) for size in SIZES]
    before = features(model, processor, pictures, depths)
    for number, spot in enumerate(SPOTS):
        repainted, nearer = [[one.copy() for one in ones] for ones in (pictures, depths)]
        repainted[number][spot] += 100
        nearer[number][spot] *= 2
        by_pixels = moved(before, features(model, processor, repainted, depths))
        by_depth = moved(before, features(model, processor, pictures, nearer))
        assert by_pixels == by_depth
        is_cut_off = name == "llava_clip" and number == 1  # outside the square that CLIP crops
        assert (len(by_depth) == 0) is is_cut_off
        assert len(by_depth) < len(before) / 2


def set_up(name: str) -> tuple[Any, DepthProcessor]:
    """Model without attention between patches, with depth that moves tokens, and its processor."""
    if not hasattr(models, name):
        pytest.skip(f"no tiny {name}")
    torch.manual_seed(0)
    model = getattr(models, name)().model.eval()
    model = add_depth(model, DepthConfig(columns=("mean", "valid"), hidden=8))
    output = re.compile(r"(vision|visual).*(attn|attention)\.(out_proj|proj|projection_layer)\.(weight|bias)$")
    silenced = [weight for key, weight in model.named_parameters() if output.search(key)]
    assert silenced
    with torch.no_grad():
        for weight in silenced:
            weight.zero_()
        embedder_of(model).layers[2].weight.normal_()
    processor, options = CASES[name]
    if processor == "GotOcr2ImageProcessor" and not hasattr(transformers, f"{processor}Pil"):
        pytest.skip("this version's resizes with bicubic kernels whatever is asked; refused")
    try:
        own = image_processor_of(processor, **options)
    except (ImportError, AttributeError):
        pytest.skip(f"this version of transformers has no {processor} without torchvision")
    own.resample = 0
    return model, DepthProcessor.for_model(model, own)


def features(model: Any, processor: DepthProcessor, pictures: list[Any], depths: list[Any]) -> Tensor:
    """Image tokens (T, D) that the language model gets."""
    nested = [[Image.fromarray(one)] for one in pictures]
    output = dict(processor(images=nested, depth=depths, return_tensors="pt"))
    stats = output.pop("depth_stats")
    names = inspect.signature(type(model.model).get_image_features).parameters
    inputs = {key: value for key, value in output.items() if key in names}
    with torch.no_grad(), given_depth(model, stats, **inputs):
        found = model.model.get_image_features(**inputs)
    found = getattr(found, "pooler_output", found)
    parts = found if isinstance(found, (list, tuple)) else [found]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def moved(before: Tensor, after: Tensor) -> list[int]:
    """Numbers of the tokens that differ."""
    numbers: list[int] = (before != after).any(-1).nonzero().flatten().tolist()
    return numbers
