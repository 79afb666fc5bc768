"""Sizes of the known SigLIP vision towers, so that building one with random weights needs no network.

Values are from each checkpoint's ``config.json`` (``vision_config``). SigLIP 2's fixed-resolution checkpoints use the
same model class; NaFlex checkpoints do not and are not listed.
"""

from __future__ import annotations

from typing import Any

_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
_GIANT = {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16}
_NANO = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3}

NANO = "mvde/siglip-nano-patch16-224"


def _towers(width: dict[str, int], stem: str, patch_size: int, image_sizes: tuple[int, ...]) -> dict[str, Any]:
    return {
        f"{stem}-patch{patch_size}-{size}": {**width, "patch_size": patch_size, "image_size": size}
        for size in image_sizes
    }


TOWER_SIZES: dict[str, dict[str, int]] = {
    NANO: {**_NANO, "patch_size": 16, "image_size": 224},
    **_towers(_BASE, "google/siglip-base", 16, (224, 256, 384, 512)),
    "google/siglip-base-patch16-256-multilingual": {**_BASE, "patch_size": 16, "image_size": 256},
    **_towers(_LARGE, "google/siglip-large", 16, (256, 384)),
    **_towers(_SO400M, "google/siglip-so400m", 14, (224, 384)),
    "google/siglip-so400m-patch16-256-i18n": {**_SO400M, "patch_size": 16, "image_size": 256},
    **_towers(_BASE, "google/siglip2-base", 16, (224, 256, 384, 512)),
    **_towers(_BASE, "google/siglip2-base", 32, (256,)),
    **_towers(_LARGE, "google/siglip2-large", 16, (256, 384, 512)),
    **_towers(_SO400M, "google/siglip2-so400m", 14, (224, 384)),
    **_towers(_SO400M, "google/siglip2-so400m", 16, (256, 384, 512)),
    **_towers(_GIANT, "google/siglip2-giant-opt", 16, (256, 384)),
}
"""Keyword arguments of ``transformers.SiglipVisionConfig`` by hub name. The nano tower has no hub checkpoint."""
