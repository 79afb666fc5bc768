"""Depth Anything V2 with random weights, saved as its authors save it, for measurements of speed and memory.

python benchmarks/random_depth_anything.py FOLDER --size small
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import transformers

SIZES = {
    "small": {"hidden": 384, "heads": 6, "neck": [48, 96, 192, 384], "fusion": 64},
    "base": {"hidden": 768, "heads": 12, "neck": [96, 192, 384, 768], "fusion": 128},
}
"""Widths of the published Small and Base (`config.json` of their checkpoints)."""

PROCESSOR = {
    "do_normalize": True,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 14,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "DPTImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "keep_aspect_ratio": True,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 518, "width": 518},
    "size_divisor": None,
}


def main() -> None:
    """Save the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    arguments = parser.parse_args()
    save(arguments.folder, arguments.size)


def save(folder: Path, size: str) -> None:
    """Save configuration, weights and preprocessing of a Depth Anything V2 of that size."""
    widths = SIZES[size]
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=widths["hidden"],
        num_attention_heads=widths["heads"],
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=widths["hidden"],
        neck_hidden_sizes=widths["neck"],
        fusion_hidden_size=widths["fusion"],
    )
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        model.backbone.embeddings.position_embeddings.normal_(std=0.02)
        for module in model.modules():  # the default deviation of 0.02 would fade to a constant map
            if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        spread = model.head.conv3.weight
        spread.abs_()  # a ReLU follows: the map stays above 0
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
