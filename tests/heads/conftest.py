"""Small random depth model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mvde.model import DepthModel


@pytest.fixture
def small_model(tmp_path: Path) -> DepthModel:
    """Random tower of width 32 with two taps; the upper two of its four layers are dropped."""
    transformers = pytest.importorskip("transformers")
    from mvde.model import DepthModelFactory

    config = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2, image_size=64
    )
    config.save_pretrained(tmp_path / "tower")
    return DepthModelFactory.create_siglip_model(
        str(tmp_path / "tower"), 64, tap_layers=(1, 2), decoder_channels=8, decoder_blocks=2, pretrained=False
    )
