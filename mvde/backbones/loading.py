"""Loading and building of vision towers: a hub name, a local directory, or sizes with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mvde.backbones.hub import (
    check_complete,
    check_safetensors,
    load_pretrained,
    quiet_transformers,
    read_json,
)
from mvde.backbones.hub import (
    image_normalization as _image_normalization,
)
from mvde.backbones.position import sincos_position
from mvde.backbones.sizes import NANO, TOWER_SIZES
from mvde.backbones.taps import resolve_taps
from mvde.backbones.tower import TowerBackbone
from mvde.backbones.towers import SIGLIP, TOWERS, WRAPPERS, tower_of
from mvde.errors import CheckpointError, ConfigError

SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)

_WAY_OUT = "give a local directory that holds them, or pretrained=False (vit.pretrained: false) for random weights"
# Names of the tower's weights within a language model that sees, e.g. LLaVA.
_IN_LANGUAGE_MODEL = {r"^(language_model\.)?(model\.)?vision_tower\.": ""}


def tower_spec(name: str) -> dict[str, Any]:
    """Sizes of the tower of a local directory or a known name: arguments of its configuration, and its ``model_type``.

    Without ``model_type`` it is a SigLIP tower. Raises :class:`ConfigError` for an unknown name,
    :class:`CheckpointError` for a directory of another model.
    """
    if name in TOWER_SIZES:
        return dict(TOWER_SIZES[name])
    if Path(name).is_dir():
        return _spec_from_config(name, read_json(Path(name) / "config.json"))
    raise ConfigError(f"vit.name {name!r} is neither a local directory nor a known tower: {', '.join(TOWER_SIZES)}")


def image_normalization(name: str, spec: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation (RGB, pixels in [0, 1]) that the tower ``name`` was trained with.

    SigLIP has one for all its checkpoints; other towers without a preprocessor file are refused.
    """
    if name in TOWER_SIZES:
        return SIGLIP_MEAN, SIGLIP_STD
    is_siglip = spec.get("model_type", SIGLIP) == SIGLIP
    return _image_normalization(name, (SIGLIP_MEAN, SIGLIP_STD) if is_siglip else None)


def whole_patches(size: tuple[int, int], spec: dict[str, Any]) -> tuple[int, int]:
    """Native size (H, W) in pixels: sides that are the tower's own are cropped to whole patches, as the tower does.

    384 becomes 378 for patches of 14. Other sides are returned unchanged.
    """
    own, patch = spec.get("image_size"), spec["patch_size"]
    height, width = (side // patch * patch if side == own else side for side in size)
    return height, width


def random_tower(spec: dict[str, Any], tap_layers: tuple[int, ...]) -> TowerBackbone:
    """Build a backbone with random weights and the sizes of ``spec`` (see :func:`tower_spec`)."""
    tower = tower_of(spec)
    taps = resolve_taps(tap_layers, spec["num_hidden_layers"])
    backbone = tower.build(tower.model_class()(tower.make_config(spec, max(taps))), taps)
    if spec == TOWER_SIZES[NANO]:
        position = backbone.get_parameter("position.weight")
        with torch.no_grad():
            position.copy_(sincos_position(round(position.shape[0] ** 0.5), backbone.width))
    return backbone


def pretrained_tower(name: str, tap_layers: tuple[int, ...]) -> tuple[TowerBackbone, dict[str, Any]]:
    """Load the vision tower of a hub name or local directory; return the backbone and its sizes.

    Only the vision part is read, from safetensors; layers past the deepest tap are never allocated. Raises
    :class:`CheckpointError` with advice if the weights are unavailable.
    """
    if name == NANO:
        raise CheckpointError(f"{name} has no pretrained weights of its own; {_WAY_OUT}")
    given = _config(name)
    spec = dict(TOWER_SIZES[name]) if given is None else _spec_from_config(name, given)
    tower = tower_of(spec)
    taps = resolve_taps(tap_layers, spec["num_hidden_layers"])
    check_safetensors(name)
    renamed: dict[str, Any] = {"key_mapping": _IN_LANGUAGE_MODEL} if _is_language_model(given) else {}

    def load(**where: Any) -> tuple[Any, dict[str, Any]]:
        loaded: tuple[Any, dict[str, Any]] = tower.model_class().from_pretrained(
            name,
            config=tower.make_config(spec, max(taps)),
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **renamed,
            **where,
        )
        return loaded

    with quiet_transformers():
        model, loading_info = load_pretrained(name, load, _WAY_OUT)
    check_complete(name, loading_info)
    return tower.build(model, taps), spec


def _config(name: str) -> dict[str, Any] | None:
    """JSON of the configuration of ``name``; None for a known name, whose sizes are in the table."""
    if Path(name).is_dir():
        return read_json(Path(name) / "config.json")
    return None if name in TOWER_SIZES else _config_from_hub(name)


def _config_from_hub(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    def load(**where: Any) -> dict[str, Any]:
        given: dict[str, Any] = AutoConfig.from_pretrained(name, **where).to_dict()
        return given

    return load_pretrained(name, load, _WAY_OUT)


def _is_language_model(given: dict[str, Any] | None) -> bool:
    return (
        given is not None
        and "vision_config" in given
        and "text_config" in given
        and (given.get("model_type") not in ("siglip", "siglip2", "clip"))
    )


def _spec_from_config(name: str, given: dict[str, Any]) -> dict[str, Any]:
    vision = given.get("vision_config")
    vision = vision if isinstance(vision, dict) else given
    outer = given.get("model_type")
    model_type = (
        WRAPPERS.get(str(outer), outer) if vision is given else vision.get("model_type", WRAPPERS.get(str(outer)))
    )
    if model_type not in TOWERS:
        stated = repr(outer) if vision is given else f"{outer!r} with a tower {model_type!r}"
        raise CheckpointError(
            f"{name!r} is a {stated}, which is no tower that mvde trains on; model_type must be one of "
            f"{', '.join(TOWERS)}, or a model around one ({', '.join(WRAPPERS)}); depth models are exported with "
            f"mvde export --model"
        )
    spec = TOWERS[model_type].spec_of(vision)
    return spec if model_type == SIGLIP else {"model_type": model_type, **spec}
