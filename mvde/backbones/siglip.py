"""SigLIP and SigLIP 2 vision towers, tapped: one feature map per hidden state that the decoder asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mvde.backbones.position import FixedPositionEmbedding, PositionEmbedding, sincos_position
from mvde.backbones.sizes import NANO, TOWER_SIZES
from mvde.backbones.taps import resolve_taps
from mvde.config import check_resolution
from mvde.errors import CheckpointError, ConfigError

SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


def tokens_from_map(features: Tensor) -> Tensor:
    """Tokens (B, rows * columns, D) in row-major order, from a feature map (B, D, rows, columns)."""
    return rearrange(features, "b d rows columns -> b (rows columns) d")


def map_from_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Feature map (B, D, rows, columns), from row-major tokens (B, rows * columns, D). SigLIP has no class token."""
    return rearrange(tokens, "b (rows columns) d -> b d rows columns", rows=grid[0], columns=grid[1])


class SiglipBackbone(nn.Module):
    """The encoder of a SigLIP tower up to its deepest tap; neither final normalisation nor pooling head.

    ``taps`` are indices into the hidden states, 0 being the embedding. Layers past the deepest tap are dropped.
    """

    def __init__(
        self, patch_embedding: nn.Conv2d, position: nn.Module, layers: Iterable[nn.Module], taps: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.patch_embedding = patch_embedding
        self.position = position
        self.layers = nn.ModuleList(list(layers)[: max(taps)])
        self.taps = taps

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embedding.kernel_size[0]

    @property
    def width(self) -> int:
        """Channels of each feature map."""
        return self.patch_embedding.out_channels

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (B, D, H / patch, W / patch), one per tap, from normalised pixels (B, 3, H, W) in RGB."""
        embedded = self.patch_embedding(pixels)
        grid = (int(embedded.shape[2]), int(embedded.shape[3]))
        hidden = tokens_from_map(embedded) + self.position(grid)
        states = {0: hidden}
        for index, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, None)
            states[index] = hidden
        return tuple(map_from_tokens(states[tap], grid) for tap in self.taps)

    def train(self, mode: bool = True) -> SiglipBackbone:
        """This module, in training or evaluation mode.

        Training on a CPU uses plain matrix products: the backward pass of scaled_dot_product_attention is slower
        there. Everything else, export included, uses scaled_dot_product_attention.
        """
        super().train(mode)
        on_cpu = self.patch_embedding.weight.device.type == "cpu"
        self.set_attention("eager" if mode and on_cpu else "sdpa")
        return self

    def set_attention(self, implementation: str) -> None:
        """Use transformers' attention ``implementation`` (``"sdpa"`` or ``"eager"``) in every layer."""
        for layer in self.layers:
            layer.self_attn.config._attn_implementation = implementation  # type: ignore[union-attr]

    def at_resolution(self, resolution: tuple[int, int]) -> SiglipBackbone:
        """The same backbone, sharing its layers, with the position embedding of ``resolution`` (H, W) as a constant."""
        check_resolution(resolution, self.patch_size)
        grid = (resolution[0] // self.patch_size, resolution[1] // self.patch_size)
        with torch.no_grad():
            position = FixedPositionEmbedding(self.position(grid), grid)
        return SiglipBackbone(self.patch_embedding, position, self.layers, self.taps)


def tower_spec(name: str) -> dict[str, Any]:
    """Keyword arguments of ``SiglipVisionConfig`` for a well-known name, a local directory, or a cached hub name."""
    if name in TOWER_SIZES:
        return dict(TOWER_SIZES[name])
    if Path(name).is_dir():
        return _spec_from_directory(Path(name))
    raise ConfigError(
        f"vit.name {name!r} is neither a local directory nor a tower whose sizes are known: {', '.join(TOWER_SIZES)}"
    )


def random_siglip(spec: dict[str, Any], tap_layers: tuple[int, ...]) -> SiglipBackbone:
    """Backbone with random weights and the sizes of ``spec`` (keyword arguments of ``SiglipVisionConfig``)."""
    from transformers import SiglipVisionModel

    taps = resolve_taps(tap_layers, spec["num_hidden_layers"])
    config = _vision_config(spec, max(taps))
    backbone = _tapped(SiglipVisionModel(config), taps)
    if spec == TOWER_SIZES[NANO]:
        position = backbone.position.weight
        with torch.no_grad():
            position.copy_(sincos_position(round(position.shape[0] ** 0.5), backbone.width))  # type: ignore[operator, arg-type]
    return backbone


def pretrained_siglip(name: str, tap_layers: tuple[int, ...]) -> tuple[SiglipBackbone, dict[str, Any]]:
    """Backbone with the weights of a hub name or local directory, and its sizes; only the vision tower is loaded.

    Raises :class:`CheckpointError` where the weights cannot be had, with the way out.
    """
    from transformers import SiglipVisionConfig, SiglipVisionModel

    way_out = "give a local directory that holds them, or pretrained=False (vit.pretrained: false) for random weights"
    if name == NANO:
        raise CheckpointError(f"{name} has no pretrained weights of its own; {way_out}")
    try:
        spec = tower_spec(name) if name in TOWER_SIZES or Path(name).is_dir() else None
        if spec is None:
            spec = _spec_from_config(SiglipVisionConfig.from_pretrained(name).to_dict())
        taps = resolve_taps(tap_layers, spec["num_hidden_layers"])
        model = SiglipVisionModel.from_pretrained(name, config=_vision_config(spec, max(taps)), dtype=torch.float32)
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"cannot load pretrained weights of {name!r} ({reason}); {way_out}") from error
    return _tapped(model, taps), spec


def image_normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel (of pixels in [0, 1]) that the tower was trained with."""
    path = Path(name) / "preprocessor_config.json"
    if not path.is_file():
        return SIGLIP_MEAN, SIGLIP_STD
    given = json.loads(path.read_text())
    return tuple(given.get("image_mean", SIGLIP_MEAN)), tuple(given.get("image_std", SIGLIP_STD))


_SPEC_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size",
    "hidden_act", "layer_norm_eps",
)  # fmt: skip


def _spec_from_directory(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        given = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    return _spec_from_config(given.get("vision_config", given))


def _spec_from_config(given: dict[str, Any]) -> dict[str, Any]:
    from transformers import SiglipVisionConfig

    model_type = given.get("model_type", SiglipVisionConfig.model_type)
    if model_type != SiglipVisionConfig.model_type:
        raise CheckpointError(
            f"the configuration describes a {model_type!r}, not a {SiglipVisionConfig.model_type!r}; NaFlex "
            f"checkpoints (variable resolution) are not supported, use a fixed-resolution SigLIP or SigLIP 2 checkpoint"
        )
    defaults = SiglipVisionConfig().to_dict()
    return {key: given.get(key, defaults[key]) for key in _SPEC_KEYS}


def _vision_config(spec: dict[str, Any], num_layers: int) -> Any:
    from transformers import SiglipVisionConfig

    config = SiglipVisionConfig(**{**spec, "num_hidden_layers": num_layers}, vision_use_head=False)
    config._attn_implementation = "sdpa"
    return config


def _tapped(model: Any, taps: tuple[int, ...]) -> SiglipBackbone:
    tower = getattr(model, "vision_model", model)  # transformers before 5 wraps the tower once more
    embeddings = tower.embeddings
    position = PositionEmbedding(*embeddings.position_embedding.weight.shape)
    with torch.no_grad():
        position.weight.copy_(embeddings.position_embedding.weight)
    return SiglipBackbone(embeddings.patch_embedding, position, tower.encoder.layers, taps)
