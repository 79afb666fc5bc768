"""Where depth enters a vision-language model: one line per model type of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import nn

from mvde.errors import UsageError


class Where(str, Enum):
    """The tensor of a module that holds one token per patch."""

    INPUT = "input"
    """Its first argument."""
    OUTPUT = "output"
    """``last_hidden_state`` of its output."""


class Order(str, Enum):
    """Order of the patches at a site."""

    RASTER = "raster"
    """That of ``pixel_values``."""
    WINDOW = "window"
    """That of Qwen2.5-VL's attention windows."""


class Padding(str, Enum):
    """Which tiles of ``pixel_values`` (images, tiles, ...) a model leaves out before its tower."""

    NONE = "none"
    """None of them."""
    SIZES = "sizes"
    """Those beyond the number that follows from ``image_sizes``."""
    BLANK = "blank"
    """Those that are 0 in every value."""


def member_of(kind: type[Enum], name: str, value: object) -> Enum:
    """Return the member of ``kind`` with a value. Raises :class:`UsageError`, which names the field and the choices."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise UsageError(f"{name} is {value!r}, but expected one of {known}") from None


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the tokens of depth are added: after the tower, before projector, pixel shuffle or merger.

    ``path`` names the module in the model. ``prefix`` is the number of leading tokens of each tile that belong to no
    patch (class token, registers); ``None`` takes it from the tower.
    """

    path: str
    where: Where = Where.INPUT
    order: Order = Order.RASTER
    padding: Padding = Padding.NONE
    prefix: int | None = None

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for a value that is no member of its enumeration."""
        for name, kind in (("where", Where), ("order", Order), ("padding", Padding)):
            object.__setattr__(self, name, member_of(kind, name, getattr(self, name)))
        if self.prefix is not None and (not isinstance(self.prefix, int) or self.prefix < 0):
            raise UsageError(f"prefix must be a whole number of at least 0, but got {self.prefix!r}")


_PROJECTOR = Site(path="model.multi_modal_projector")
_TILED_PROJECTOR = Site(path="model.multi_modal_projector", padding=Padding.SIZES)
_CONNECTOR = Site(path="model.connector", padding=Padding.BLANK)
_MERGER = Site(path="model.visual.merger")
_LAST_NORM = Site(path="model.visual.post_layernorm")  # a convolution merges 2x2 patches right after it
# Pixel shuffle, or the cut to each picture's length, comes between the tower and the projector.
_TOWER = Site(path="model.vision_tower", where=Where.OUTPUT)

SITES: dict[str, Site] = {
    "aya_vision": _PROJECTOR,
    "cohere2_vision": _PROJECTOR,
    "deepseek_vl": Site(path="model.aligner"),
    "gemma3": _PROJECTOR,
    "glm46v": _LAST_NORM,
    "glm4v": _LAST_NORM,
    "idefics3": _CONNECTOR,
    "internvl": _TOWER,
    "lfm2_vl": _TOWER,
    "llava": _PROJECTOR,
    "llava_next": _TILED_PROJECTOR,
    "llava_next_video": _TILED_PROJECTOR,
    "llava_onevision": _TILED_PROJECTOR,
    "mistral3": _PROJECTOR,
    "paligemma": _PROJECTOR,
    "qwen2_5_vl": Site(path="model.visual.merger", order=Order.WINDOW),
    "qwen2_vl": _MERGER,
    "qwen3_5": _MERGER,
    "qwen3_vl": _MERGER,
    "qwen3_vl_moe": _MERGER,
    "smolvlm": _CONNECTOR,
    "vipllava": _PROJECTOR,
}
"""The site of each model type (``config.model_type``); other models take ``DepthConfig(site=...)``."""


def site_of(model: nn.Module, site: Site | None = None) -> Site:
    """Return ``site``, or the one of the model's type, with its prefix filled in.

    Raises :class:`UsageError` if the type is not in :data:`SITES`, or the model has no such module.
    """
    model_type = getattr(_config(model), "model_type", None)
    found = site or SITES.get(str(model_type))
    if found is None:
        raise UsageError(
            f"it is not known where depth enters a model of type {model_type!r}; known types: {', '.join(SITES)}. For "
            f"another one give the module that takes one token per patch: DepthConfig(site=Site(path='...'))"
        )
    try:
        model.get_submodule(found.path)
    except AttributeError:
        children = ", ".join(name for name, _ in getattr(model, "model", model).named_children())
        raise UsageError(
            f"{type(model).__name__} has no module {found.path!r}; its parts are {children}: name one by its full path"
        ) from None
    prefix = _prefix(model) if found.prefix is None else found.prefix
    _check_layer(model, found)
    return Site(path=found.path, where=found.where, order=found.order, padding=found.padding, prefix=prefix)


def width_of(model: nn.Module) -> int:
    """Width of the tokens at the model's site: that of its tower, times the number of layers that are concatenated.

    Raises :class:`UsageError` if the configuration does not state it.
    """
    config = _config(model)
    tower = getattr(config, "vision_config", None)
    # Qwen2-VL's `hidden_size` is the language model's.
    width = getattr(tower, "embed_dim", None) or getattr(tower, "hidden_size", None)
    if width is None:
        raise UsageError(
            f"the configuration of {type(model).__name__} does not state the width of its tower; "
            f"give it: DepthConfig(width=...)"
        )
    layers = getattr(config, "vision_feature_layer", None)
    if layers is None:
        layers = getattr(config, "vision_feature_layers", None)
    return int(width) * (len(layers) if isinstance(layers, list | tuple) else 1)


def _config(model: nn.Module) -> Any:
    return getattr(model, "config", None)


def _prefix(model: nn.Module) -> int:
    """Number of tokens before the patches at the site, as the tower and the configuration say."""
    config = _config(model)
    strategy = getattr(config, "vision_feature_select_strategy", None)
    model_type = getattr(config, "model_type", None)
    if strategy == "default" and model_type != "internvl":  # removed before the projector
        return 0
    if model_type == "vipllava":
        return 0
    tower = _tower(model)
    if tower is None:
        return 0
    names = {name.rpartition(".")[2]: parameter for name, parameter in tower.named_parameters()}
    num_class = sum(name in names for name in ("class_embedding", "cls_token"))
    registers = names.get("register_tokens")
    return num_class + (0 if registers is None else int(registers.shape[-2]))


def _tower(model: nn.Module) -> nn.Module | None:
    inner = getattr(model, "model", model)
    for name in ("vision_tower", "vision_model", "visual"):
        tower = getattr(inner, name, None)
        if isinstance(tower, nn.Module):
            return tower
    return None


def _check_layer(model: nn.Module, site: Site) -> None:
    """Raise unless the layer that a model takes its image tokens from is the one whose output the site changes."""
    layer = getattr(_config(model), "vision_feature_layer", -1)
    if site.where is Where.OUTPUT and layer not in (-1, None):
        raise UsageError(
            f"{type(model).__name__} takes its image tokens from layer {layer} of the tower, but depth is added to the "
            f"output of the last one; set vision_feature_layer=-1"
        )
