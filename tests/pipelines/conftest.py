"""Tiny model and data set for training tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY_TOWER = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    """Use one thread: fixed summation order, and no contention between test processes."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tower_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the configuration of a tiny tower."""
    folder = tmp_path_factory.mktemp("tower")
    (folder / "config.json").write_text(json.dumps(TINY_TOWER))
    return folder


@pytest.fixture(scope="session")
def frames_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven frames in the folder format; brighter pixels are nearer."""
    root = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(0)
    (root / "rgb").mkdir()
    (root / "depth").mkdir()
    for index in range(11):
        coarse = rng.random((3, 4))
        bright = np.kron(coarse, np.ones((12, 12)))
        pixels = (255 * bright[..., None] * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
        Image.fromarray(pixels).save(root / "rgb" / f"{index:02d}.png")
        Image.fromarray((1000 * (3 - 2 * bright)).astype(np.uint16)).save(root / "depth" / f"{index:02d}.png")
    return root


@pytest.fixture
def tiny_config(tower_dir: Path, frames_dir: Path) -> Callable[..., dict[str, Any]]:
    """Factory of configurations with eight steps of four images; keywords override the ``train`` section."""

    def make(**train: Any) -> dict[str, Any]:
        section = {
            "res": [32, 32],
            "batch_size": 4,
            "steps": 8,
            "freeze_backbone_steps": 0,
            "warmup_steps": 2,
            "lr": 2e-3,
            "backbone_lr_scale": 0.5,
            "autocast": "none",
            "num_workers": 0,
            "validate_every": 0,
            "checkpoint_every": 0,
            "log_every": 1,
            "tracker": "none",
        }
        return {
            "name": "tiny",
            "vit": {"name": str(tower_dir), "tap_layers": [1, 2, 3, 4], "image_size": 32, "pretrained": False},
            "decoder": {"c_dec": 16},
            "train": section | train,
            "data": {"format": "folder", "train": str(frames_dir), "val": str(frames_dir)},
        }

    return make
