"""The table of towers: for each ``model_type`` of transformers its classes, its sizes and where its parts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mvde.backbones.position import PositionEmbedding, RotaryEmbedding
from mvde.backbones.tower import TowerBackbone
from mvde.errors import ConfigError

SIGLIP = "siglip_vision_model"
"""Tower of a specification without ``model_type``, as checkpoints of mvde have held it from the first version."""

_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_DINOV2_SIZES = (*_SIZES, "image_size", "mlp_ratio", "qkv_bias", "use_swiglu_ffn")


@dataclass(frozen=True)
class Tower:
    """One kind of tower.

    ``model`` and ``config`` name classes of transformers, ``keys`` the arguments of the configuration that fix the
    architecture, ``fixed`` arguments that are always the same. ``build`` makes the backbone from a model and its taps.
    """

    model: str
    config: str
    keys: tuple[str, ...]
    build: Callable[[Any, tuple[int, ...]], TowerBackbone]
    fixed: tuple[tuple[str, Any], ...] = ()

    def make_config(self, spec: dict[str, Any], num_layers: int) -> Any:
        """Build the transformers configuration of the sizes ``spec`` with ``num_layers`` layers."""
        import transformers

        sizes = {key: value for key, value in spec.items() if key != "model_type"}
        config_class: Any = getattr(transformers, self.config)
        config = config_class(**{**sizes, "num_hidden_layers": num_layers}, **dict(self.fixed))
        config._attn_implementation = "sdpa"
        return config

    def model_class(self) -> Any:
        """Return the class of the model."""
        import transformers

        return getattr(transformers, self.model)

    def spec_of(self, vision: dict[str, Any]) -> dict[str, Any]:
        """Sizes in the JSON of a configuration; keys that it lacks take transformers' defaults."""
        import transformers

        config_class: Any = getattr(transformers, self.config)
        defaults = config_class().to_dict()
        return {key: vision.get(key, defaults[key]) for key in self.keys}


def tower_of(spec: dict[str, Any]) -> Tower:
    """Entry of the table for the sizes ``spec``. Raises :class:`ConfigError` for an unknown ``model_type``."""
    model_type = spec.get("model_type", SIGLIP)
    if model_type not in TOWERS:
        raise ConfigError(f"there is no tower of model_type {model_type!r}; known are {', '.join(TOWERS)}")
    return TOWERS[model_type]


def _siglip(model: Any, taps: tuple[int, ...]) -> TowerBackbone:
    tower = getattr(model, "vision_model", model)  # transformers before 5 has an extra wrapper
    embeddings = tower.embeddings
    position = _position(embeddings.position_embedding.weight)
    return TowerBackbone(embeddings.patch_embedding, position, tower.encoder.layers, taps)


def _siglip2_naflex(model: Any, taps: tuple[int, ...]) -> TowerBackbone:
    """NaFlex takes patches (row, column, channel) through a linear layer: a convolution at a fixed shape."""
    tower = getattr(model, "vision_model", model)
    linear, patch = tower.embeddings.patch_embedding, tower.embeddings.patch_size
    convolution = nn.Conv2d(3, linear.out_features, patch, stride=patch, device=linear.weight.device)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.reshape(-1, patch, patch, 3).permute(0, 3, 1, 2))
        convolution.bias.copy_(linear.bias)  # type: ignore[union-attr]
    position = _position(tower.embeddings.position_embedding.weight, mode="bilinear", antialias=True)
    return TowerBackbone(convolution, position, tower.encoder.layers, taps)


def _clip(model: Any, taps: tuple[int, ...]) -> TowerBackbone:
    tower = getattr(model, "vision_model", model)
    embeddings = tower.embeddings
    weight = embeddings.position_embedding.weight
    prefix = (embeddings.class_embedding + weight[0])[None, None]
    layers = tower.encoder.layers
    return TowerBackbone(
        embeddings.patch_embedding, _position(weight[1:]), layers, taps, prefix=prefix, norm=tower.pre_layrnorm
    )


def _dinov2(model: Any, taps: tuple[int, ...]) -> TowerBackbone:
    embeddings = model.embeddings
    registers = getattr(embeddings, "register_tokens", None)
    weight = embeddings.position_embeddings[0]
    prefix = embeddings.cls_token + weight[:1]  # registers have no position
    if registers is not None:
        prefix = torch.cat([prefix, registers], dim=1)
    position = _position(weight[1:], antialias=registers is not None)
    projection = embeddings.patch_embeddings.projection
    return TowerBackbone(projection, position, model.encoder.layer, taps, prefix=prefix, masked=False)


def _dinov3(model: Any, taps: tuple[int, ...]) -> TowerBackbone:
    config, embeddings = model.config, model.embeddings
    prefix = torch.cat([embeddings.cls_token, embeddings.register_tokens], dim=1)
    rotary = RotaryEmbedding(config.hidden_size // config.num_attention_heads, config.rope_theta)
    layers = getattr(model, "model", model).layer  # some versions of transformers have no inner encoder
    return TowerBackbone(embeddings.patch_embeddings, None, layers, taps, prefix=prefix, rotary=rotary, masked=False)


def _position(weight: Tensor, mode: str = "bicubic", antialias: bool = False) -> PositionEmbedding:
    position = PositionEmbedding(weight.shape[0], weight.shape[1], mode=mode, antialias=antialias)
    with torch.no_grad():
        position.weight.copy_(weight)
    return position


_CLIP_SIZES = (*_SIZES, "image_size", "intermediate_size")
_DINOV3_BIASES = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias")
_NO_HEAD = (("vision_use_head", False),)

TOWERS: dict[str, Tower] = {
    SIGLIP: Tower("SiglipVisionModel", "SiglipVisionConfig", _CLIP_SIZES, _siglip, _NO_HEAD),
    "siglip2_vision_model": Tower(
        "Siglip2VisionModel",
        "Siglip2VisionConfig",
        (*_SIZES, "intermediate_size", "num_patches"),
        _siglip2_naflex,
        _NO_HEAD,
    ),
    "clip_vision_model": Tower("CLIPVisionModel", "CLIPVisionConfig", _CLIP_SIZES, _clip),
    "dinov2": Tower("Dinov2Model", "Dinov2Config", _DINOV2_SIZES, _dinov2),
    "dinov2_with_registers": Tower(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", (*_DINOV2_SIZES, "num_register_tokens"), _dinov2
    ),
    "dinov3_vit": Tower(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        (*_CLIP_SIZES, "num_register_tokens", "rope_theta", "use_gated_mlp", *_DINOV3_BIASES),
        _dinov3,
    ),
}
"""Towers by the ``model_type`` of their own configuration."""

WRAPPERS = {
    "siglip": SIGLIP,
    "siglip2": "siglip2_vision_model",
    "clip": "clip_vision_model",
    "llava": "clip_vision_model",
}
"""Tower by the ``model_type`` of a model around it, where its ``vision_config`` states none."""
