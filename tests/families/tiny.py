"""Tiny random networks and realistic preprocessor files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
COMMON = {"do_normalize": True, "do_rescale": True, "rescale_factor": 0.00392156862745098, "do_resize": True}


def dpt_processor(size: int, **changed: Any) -> dict[str, Any]:
    """``preprocessor_config.json`` as the authors' have it, with another size."""
    return {
        **COMMON,
        "do_pad": False,
        "ensure_multiple_of": 1,
        "image_processor_type": "DPTImageProcessor",
        "keep_aspect_ratio": False,
        "resample": 3,
        "size": {"height": size, "width": size},
        "size_divisor": None,
        **HALF,
        **changed,
    }


DEPTH_ANYTHING_PROCESSOR = dpt_processor(56, ensure_multiple_of=14, keep_aspect_ratio=True, **IMAGENET)


def dinov2(**changed: Any) -> Any:
    """Configuration of a small DINOv2 backbone with patch 14."""
    return transformers.Dinov2Config(
        **{
            "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
            "mlp_ratio": 2, "out_indices": [1, 2, 3, 4], "reshape_hidden_states": False, "apply_layernorm": True,
            **changed,
        }
    )  # fmt: skip


def depth_anything(**changed: Any) -> Any:
    """Depth Anything; its map is lifted off 0, which a random ReLU head mostly gives."""
    config = transformers.DepthAnythingConfig(
        backbone_config=dinov2(), reassemble_hidden_size=24, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8, patch_size=14, **changed,
    )  # fmt: skip
    model = transformers.DepthAnythingForDepthEstimation(config)
    return lively(model, model.head.conv3, lift=0.5)


def dpt(**changed: Any) -> Any:
    """DPT with its own ViT, or the backbone given."""
    own = {
        "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 64,
        "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8, "readout_type": "ignore", "is_hybrid": False,
    }  # fmt: skip
    model = transformers.DPTForDepthEstimation(transformers.DPTConfig(**{**own, **changed}))
    return lively(model, model.head.head[4], lift=1.0)


def hybrid() -> Any:
    """DPT-hybrid on a small BiT."""
    bit = transformers.BitConfig(
        global_padding="same", layer_type="bottleneck", depths=[1, 1, 1], hidden_sizes=[32, 32, 64], embedding_size=16,
        num_groups=4, out_features=["stage1", "stage2", "stage3"], embedding_dynamic_padding=True,
    )  # fmt: skip
    return dpt(
        is_hybrid=True, backbone_config=bit, backbone_featmap_shape=[1, 64, 4, 4], readout_type="project",
        neck_hidden_sizes=[32, 32, 8, 8], neck_ignore_stages=[0, 1],
    )  # fmt: skip


def beit() -> Any:
    """Configuration of a small BEiT backbone with relative position biases."""
    return transformers.BeitConfig(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        use_relative_position_bias=True, reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def swin() -> Any:
    """Configuration of a small Swin v2 backbone."""
    return transformers.Swinv2Config(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, patch_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def glpn() -> Any:
    """GLPN with small stages."""
    config = transformers.GLPNConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8,
        mlp_ratios=[2, 2, 2, 2],
    )  # fmt: skip
    model = transformers.GLPNForDepthEstimation(config)
    return lively(model, model.head.head[2])


def zoedepth(*domains: str) -> Any:
    """ZoeDepth with one head, or one for each domain."""
    bins: list[dict[str, Any]] = [{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}]
    if domains:
        bins = [{"name": name, "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0 * (1 + 7 * index)}
                for index, name in enumerate(domains)]  # fmt: skip
    config = transformers.ZoeDepthConfig(
        backbone_config=beit(), neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, bottleneck_features=8,
        num_relative_features=8, bin_embedding_dim=8, num_attractors=[4, 2, 2, 1], bin_configurations=bins,
        readout_type="project", num_patch_transformer_layers=4, patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=16, patch_transformer_num_attention_heads=2,
    )  # fmt: skip
    model = transformers.ZoeDepthForDepthEstimation(config)
    with torch.no_grad():
        for parameter in model.metric_head.parameters():
            parameter.normal_(std=0.5)
    return lively(model, model.relative_head.conv3)


def depth_pro(use_fov_model: bool = True) -> Any:
    """Depth Pro at 256x256; as in the author's, its map has the size of its input."""
    tower = {
        "model_type": "dinov2", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 16, "mlp_ratio": 2,
    }  # fmt: skip
    config = transformers.DepthProConfig(
        patch_size=64, fusion_hidden_size=16, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[16, 16, 8], image_model_config=dict(tower), patch_model_config=dict(tower),
        fov_model_config=dict(tower), use_fov_model=use_fov_model, merge_padding_value=1,
    )  # fmt: skip
    model = transformers.DepthProForDepthEstimation(config)
    lively(model, model.head.layers[4], lift=1.0)
    if model.fov_model is not None:
        last = model.fov_model.head.layers[-1]
        with torch.no_grad():
            last.weight.mul_(1e-5)
            last.bias.fill_(60.0)  # degrees
    return model


def tipsv2() -> Any:
    """TIPSv2 with its depth head."""
    backbone = {
        "model_type": "tipsv2_vision_model", "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2,
        "image_size": 56, "patch_size": 14, "intermediate_size": 32, "out_indices": [1, 2, 3, 4],
        "apply_layernorm": True, "reshape_hidden_states": False,
    }  # fmt: skip
    config = transformers.Tipsv2DptConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, num_depth_bins=16
    )
    model = transformers.Tipsv2DptForDepthEstimation(config)
    return lively(model, model.neck.convs[0])


def lively(model: Any, last: Any, lift: float = 0.0) -> Any:
    """Scale the weights, so that the map varies with the image and, with ``lift``, stays off a ReLU's 0."""
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position" in name or "cls_token" in name:
                parameter.normal_(std=0.5)
            elif parameter.ndim > 1 and parameter is not last.weight:
                parameter.mul_(4)
        outputs = []
        handle = last.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        side = SIDES.get(model.config.model_type, 64)
        model(pixel_values=torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 4 - 2)
        handle.remove()
        last.weight.div_(outputs[0].std() * 4)
        if last.bias is not None:
            last.bias.sub_(outputs[0].mean()).div_(outputs[0].std() * 4).add_(lift * 2)
    return model


SIDES = {"depth_pro": 256, "depth_anything": 56, "tipsv2_dpt": 56}
"""Side of a square image that the tiny networks take, where it is not 64."""

ZOEDEPTH_PROCESSOR = {
    **COMMON, **HALF, "do_pad": True, "ensure_multiple_of": 32, "image_processor_type": "ZoeDepthImageProcessor",
    "keep_aspect_ratio": True, "resample": 2, "size": {"height": 64, "width": 96},
}  # fmt: skip

TINY: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "depth-anything": (depth_anything, DEPTH_ANYTHING_PROCESSOR),
    "depth-anything-metric": (
        lambda: depth_anything(depth_estimation_type="metric", max_depth=20),
        DEPTH_ANYTHING_PROCESSOR,
    ),
    "dpt": (dpt, dpt_processor(64)),
    "dpt-hybrid": (hybrid, dpt_processor(64)),
    "dpt-beit": (
        lambda: dpt(backbone_config=beit(), readout_type="project"),
        dpt_processor(64, keep_aspect_ratio=True, ensure_multiple_of=32),
    ),
    "dpt-swin": (
        lambda: dpt(backbone_config=swin(), neck_hidden_sizes=[8, 16, 32, 64]),
        dpt_processor(64, keep_aspect_ratio=True, ensure_multiple_of=32),
    ),
    "dpt-dinov2": (
        lambda: dpt(backbone_config=dinov2(), readout_type="project"),
        dpt_processor(
            64, do_resize=False, do_pad=True, size_divisor=14, do_rescale=False,
            image_mean=[123.675, 116.28, 103.53], image_std=[58.395, 57.12, 57.375],
        ),
    ),
    "glpn": (
        glpn,
        {"do_rescale": True, "do_resize": True, "feature_extractor_type": "GLPNFeatureExtractor",
         "image_processor_type": "GLPNImageProcessor", "resample": 2, "size_divisor": 32},
    ),
    "zoedepth": (zoedepth, ZOEDEPTH_PROCESSOR),
    "zoedepth-two": (lambda: zoedepth("nyu", "kitti"), ZOEDEPTH_PROCESSOR),
    "depth-pro": (
        depth_pro,
        {**COMMON, **HALF, "image_processor_type": "DepthProImageProcessorFast", "resample": 2,
         "size": {"height": 256, "width": 256}},
    ),
    "tipsv2": (
        tipsv2,
        {"do_convert_rgb": True, "do_normalize": False, "do_rescale": True, "do_resize": True,
         "image_processor_type": "Tipsv2DptImageProcessor", "resample": 2, "size": {"height": 56, "width": 56}},
    ),
}  # fmt: skip
"""Network and preprocessor file by name."""


def save_tiny(key: str, folder: Path) -> Path:
    """Save the model as ``save_pretrained`` does, with its preprocessor file."""
    make, processor = TINY[key]
    torch.manual_seed(0)
    make().eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    return folder
