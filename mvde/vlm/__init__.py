"""Depth for vision-language models of transformers: patch statistics as tokens.

``add_depth(model, DepthConfig())`` gives a model a :class:`DepthEmbedder`; the model then takes ``depth_stats`` beside
``pixel_values`` and is unchanged until it is trained. :class:`DepthProcessor` makes both.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "DepthConfig": "mvde.vlm.config",
    "DepthCollator": "mvde.vlm.collator",
    "DepthEmbedder": "mvde.vlm.embedder",
    "DepthFiles": "mvde.vlm.sources",
    "DepthProcessor": "mvde.vlm.processor",
    "DepthSource": "mvde.vlm.sources",
    "OwnTower": "mvde.vlm.own_tower",
    "SITES": "mvde.vlm.sites",
    "Site": "mvde.vlm.sites",
    "StoredStats": "mvde.vlm.stored",
    "add_depth": "mvde.vlm.attach",
    "add_lora": "mvde.vlm.lora",
    "depth_config": "mvde.vlm.attach",
    "embedder_of": "mvde.vlm.attach",
    "from_pretrained": "mvde.vlm.checkpoint",
    "given_depth": "mvde.vlm.attach",
    "has_depth": "mvde.vlm.attach",
    "refuse_depth": "mvde.vlm.attach",
    "save_pretrained": "mvde.vlm.checkpoint",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
