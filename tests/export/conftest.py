"""Tiny SigLIP-shaped model with varying depth, and its exported graphs, made once per session."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

if TYPE_CHECKING:
    from mvde.model import DepthModel

RESOLUTION = (48, 80)
NUM_LAYERS = 4


@pytest.fixture(scope="session")
def make_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DepthModel]:
    """Factory of models with random weights; the decoder is scaled so that depth spans the metric range."""
    import torch

    from mvde.model import DepthModel

    def make(scale_invariant: bool = False, hidden_size: int = 32) -> DepthModel:
        tower = tmp_path_factory.mktemp("tower")
        sizes = {
            "model_type": "siglip_vision_model",
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": NUM_LAYERS + 1,
            "num_attention_heads": 2,
            "patch_size": 16,
            "image_size": 64,
        }
        (tower / "config.json").write_text(json.dumps(sizes))
        normalization = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.5]}
        (tower / "preprocessor_config.json").write_text(json.dumps(normalization))
        vit = {"name": str(tower), "tap_layers": [1, 2, 3, NUM_LAYERS], "image_size": 64, "pretrained": False}
        torch.manual_seed(0)
        model = DepthModel({"name": "tiny", "vit": vit, "decoder": {"c_dec": 16, "scale_invariant": scale_invariant}})
        with torch.no_grad():
            for parameter in model.backbone.position.parameters():
                parameter.normal_()
            images = torch.rand(2, 3, 64, 64)
            raw = model.eval().decoder(model.backbone(model.normalize(images)), (64, 64))
            last = model.decoder.head[-1]
            last.bias.sub_(raw.mean()).div_(raw.std())
            last.weight.div_(raw.std())
        return model

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model: Callable[..., DepthModel]) -> DepthModel:
    return make_tiny_model()


@pytest.fixture(scope="session")
def export_tiny_model(tiny_model: DepthModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Give the tiny model's graph at 48x80 in an opset, exported once; pytest makes `exported` anew for each file."""

    @functools.cache
    def export(opset: int) -> Path:
        from mvde.export.onnx import export_onnx

        (path,) = export_onnx(tiny_model, [RESOLUTION], tmp_path_factory.mktemp(f"opset{opset}"), opset=opset)
        return path

    return export


@pytest.fixture(scope="session", params=[23, 20], ids=["opset23", "opset20"])
def exported(request: pytest.FixtureRequest, export_tiny_model: Callable[[int], Path]) -> tuple[Path, int]:
    """Path and opset of the tiny model's graph at 48x80; read-only by convention."""
    return export_tiny_model(request.param), request.param


@pytest.fixture
def without_tracing(monkeypatch: pytest.MonkeyPatch, exported: tuple[Path, int]) -> None:
    """Replace tracing by an existing graph, to test the later steps quickly."""
    import onnx_ir as ir

    from mvde.export import exporter

    monkeypatch.setattr(exporter, "traced", lambda *arguments: contextlib.nullcontext(ir.load(exported[0])))
