"""SigLIP and SigLIP 2 vision towers that return one feature map per tapped hidden state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mvde.backbones.hub import check_complete, load_pretrained, read_json
from mvde.backbones.hub import image_normalization as _image_normalization
from mvde.backbones.position import FixedPositionEmbedding, PositionEmbedding, sincos_position
from mvde.backbones.sizes import NANO, TOWER_SIZES
from mvde.backbones.taps import resolve_taps
from mvde.errors import CheckpointError, ConfigError
from mvde.resolution import check_resolution

SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


def tokens_from_map(features: Tensor) -> Tensor:
    """Tokens (B, rows * columns, D) in row-major order, from a feature map (B, D, rows, columns)."""
    return rearrange(features, "b d rows columns -> b (rows columns) d")


def map_from_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Feature map (B, D, rows, columns), from row-major tokens (B, rows * columns, D). SigLIP has no class token."""
    return rearrange(tokens, "b (rows columns) d -> b d rows columns", rows=grid[0], columns=grid[1])


class SiglipBackbone(nn.Module):
    """Encoder of a SigLIP tower up to its deepest tap, without final normalisation and pooling head.

    ``taps`` are indices into the hidden states, where 0 is the embedding. Layers past the deepest tap are dropped.
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
        """Return feature maps (B, D, H / patch, W / patch), one per tap, of normalised RGB pixels (B, 3, H, W)."""
        embedded = self.patch_embedding(pixels)
        grid = (int(embedded.shape[2]), int(embedded.shape[3]))
        hidden = tokens_from_map(embedded) + self.position(grid)
        states = {0: hidden}
        for index, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, None)
            if index in self.taps:  # the others are freed: base's thirteen at 896 are 125 MB
                states[index] = hidden
        return tuple(map_from_tokens(states[tap], grid) for tap in self.taps)

    def train(self, mode: bool = True) -> SiglipBackbone:
        """Set training or evaluation mode; return this module.

        Training on a CPU uses plain matrix products, as the backward pass of scaled_dot_product_attention is slower
        there. Everything else, export included, uses scaled_dot_product_attention.
        """
        super().train(mode)
        on_cpu = self.patch_embedding.weight.device.type == "cpu"
        self.set_attention("eager" if mode and on_cpu else "sdpa")
        return self

    def set_attention(self, implementation: str) -> None:
        """Select transformers' attention ``implementation`` (``"sdpa"`` or ``"eager"``) in every layer."""
        for layer in self.layers:
            layer.self_attn.config._attn_implementation = implementation  # type: ignore[union-attr]

    def at_resolution(self, resolution: tuple[int, int]) -> SiglipBackbone:
        """Backbone with shared layers and the position embedding of ``resolution`` (H, W) as a constant."""
        check_resolution(resolution, self.patch_size)
        grid = (resolution[0] // self.patch_size, resolution[1] // self.patch_size)
        with torch.no_grad():
            position = FixedPositionEmbedding(self.position(grid), grid)
        return SiglipBackbone(self.patch_embedding, position, self.layers, self.taps)


def tower_spec(name: str) -> dict[str, Any]:
    """Keyword arguments of ``SiglipVisionConfig`` for a local directory or a known name.

    Raises :class:`ConfigError` for an unknown name, :class:`CheckpointError` for a directory of another model.
    """
    if name in TOWER_SIZES:
        return dict(TOWER_SIZES[name])
    if Path(name).is_dir():
        return _spec_from_config(name, read_json(Path(name) / "config.json"))
    raise ConfigError(f"vit.name {name!r} is neither a local directory nor a known tower: {', '.join(TOWER_SIZES)}")


def image_normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation (RGB, pixels in [0, 1]) that the tower was trained with."""
    return _image_normalization(name, (SIGLIP_MEAN, SIGLIP_STD))


def random_siglip(spec: dict[str, Any], tap_layers: tuple[int, ...]) -> SiglipBackbone:
    """Build a backbone with random weights and the sizes of ``spec`` (arguments of ``SiglipVisionConfig``)."""
    from transformers import SiglipVisionModel

    taps = resolve_taps(tap_layers, spec["num_hidden_layers"])
    config = _vision_config(spec, max(taps))
    backbone = _tapped(SiglipVisionModel(config), taps)
    if spec == TOWER_SIZES[NANO]:
        position = backbone.get_parameter("position.weight")
        with torch.no_grad():
            position.copy_(sincos_position(round(position.shape[0] ** 0.5), backbone.width))
    return backbone


def pretrained_siglip(name: str, tap_layers: tuple[int, ...]) -> tuple[SiglipBackbone, dict[str, Any]]:
    """Load the vision tower of a hub name or local directory; return the backbone and its sizes.

    Layers past the deepest tap are never allocated. Raises :class:`CheckpointError` with advice if the weights are
    unavailable.
    """
    from transformers import SiglipVisionModel

    way_out = "give a local directory that holds them, or pretrained=False (vit.pretrained: false) for random weights"
    if name == NANO:
        raise CheckpointError(f"{name} has no pretrained weights of its own; {way_out}")
    spec = tower_spec(name) if name in TOWER_SIZES or Path(name).is_dir() else _spec_from_hub(name, way_out)
    taps = resolve_taps(tap_layers, spec["num_hidden_layers"])

    def load(**where: Any) -> tuple[Any, dict[str, Any]]:
        loaded: tuple[Any, dict[str, Any]] = SiglipVisionModel.from_pretrained(
            name,
            config=_vision_config(spec, max(taps)),
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **where,
        )
        return loaded

    model, loading_info = load_pretrained(name, load, way_out)
    check_complete(name, loading_info)
    return _tapped(model, taps), spec


_SPEC_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size",
    "hidden_act", "layer_norm_eps",
)  # fmt: skip


def _spec_from_hub(name: str, way_out: str) -> dict[str, Any]:
    from transformers import AutoConfig

    def load(**where: Any) -> dict[str, Any]:
        given: dict[str, Any] = AutoConfig.from_pretrained(name, **where).to_dict()
        return given

    return _spec_from_config(name, load_pretrained(name, load, way_out))


def _spec_from_config(name: str, given: dict[str, Any]) -> dict[str, Any]:
    from transformers import SiglipVisionConfig

    vision = given.get("vision_config", given)
    model_type = vision.get("model_type", given.get("model_type"))
    if model_type not in (SiglipVisionConfig.model_type, "siglip"):
        raise CheckpointError(
            f"{name!r} is a {model_type!r}, not a fixed-resolution SigLIP or SigLIP 2 tower "
            f"({SiglipVisionConfig.model_type!r}); NaFlex checkpoints, of variable resolution, are not supported"
        )
    defaults = SiglipVisionConfig().to_dict()
    return {key: vision.get(key, defaults[key]) for key in _SPEC_KEYS}


def _vision_config(spec: dict[str, Any], num_layers: int) -> Any:
    from transformers import SiglipVisionConfig

    config = SiglipVisionConfig(**{**spec, "num_hidden_layers": num_layers}, vision_use_head=False)
    config._attn_implementation = "sdpa"
    return config


def _tapped(model: Any, taps: tuple[int, ...]) -> SiglipBackbone:
    tower = getattr(model, "vision_model", model)  # transformers before 5 has an extra wrapper
    embeddings = tower.embeddings
    position = PositionEmbedding(*embeddings.position_embedding.weight.shape)
    with torch.no_grad():
        position.weight.copy_(embeddings.position_embedding.weight)
    return SiglipBackbone(embeddings.patch_embedding, position, tower.encoder.layers, taps)
