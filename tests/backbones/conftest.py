"""Small random towers saved by transformers: the vision tower alone, and within a full SigLIP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}


@pytest.fixture(scope="session")
def sizes() -> dict[str, Any]:
    """Keyword arguments of a small SiglipVisionConfig with a native grid of 4 by 4 patches."""
    return dict(SIZES)


@pytest.fixture(scope="session")
def save_tower(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    """Writer of a random SiglipVisionModel; returns its directory and the model as reference."""

    def save(**changed: Any) -> tuple[Path, Any]:
        import torch
        from transformers import SiglipVisionConfig, SiglipVisionModel

        torch.manual_seed(0)
        model = SiglipVisionModel(SiglipVisionConfig(**{**SIZES, **changed})).eval()
        path = tmp_path_factory.mktemp("tower")
        model.save_pretrained(path)
        return path, model

    return save
