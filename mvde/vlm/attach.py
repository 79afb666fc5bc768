"""Giving a vision-language model of transformers depth: in place, and without any change until it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from mvde.errors import UsageError
from mvde.vlm.config import CONFIG_KEY, DepthConfig
from mvde.vlm.embedder import DepthEmbedder
from mvde.vlm.injection import DepthCall, SiteHook, active, current_call
from mvde.vlm.sites import site_of, width_of

Model = TypeVar("Model", bound=nn.Module)

EMBEDDER = "depth_embedder"
"""Name of the :class:`DepthEmbedder` in the model, and prefix of its weights in checkpoints."""

_HOOK = "_mvde_site_hook"
_REFUSAL = "_mvde_refusal"


def add_depth(model: Model, config: DepthConfig | None = None, moments: Tensor | None = None) -> Model:
    """Return ``model``, changed in place: ``forward`` and ``generate`` take ``depth_stats`` beside ``pixel_values``.

    Its outputs are bit-equal to before, with and without ``depth_stats``, until ``model.depth_embedder`` is trained.
    ``depth_stats`` (B, N, S), (images, tiles, N, S), or (patches, S) for models of ragged pictures, has one row for
    each patch of ``pixel_values``. The columns are standardised with the mean and deviation of ``moments`` (..., S),
    rows of typical pictures; without them, by ``model.depth_embedder.fit`` later.

    Raises :class:`UsageError` for a model that has depth already, a model without a known site, and columns that do not
    tell where depth is known.
    """
    if has_depth(model):
        raise UsageError(f"this {type(model).__name__} has depth already: model.{EMBEDDER}")
    if unwrapped(model) is not model:
        raise UsageError(
            f"depth is added to a model itself, but got it inside a {type(model).__name__}; add depth first, then "
            f"adapters of peft, and wrap it for several devices last"
        )
    if not hasattr(model, "config"):
        raise UsageError(
            f"depth is added to a model of transformers, but got a {type(model).__name__}; load one with "
            f"AutoModelForImageTextToText.from_pretrained"
        )
    _attach(model, config or DepthConfig())
    base: Any = type(model)
    model.__class__ = depth_class(base)
    if moments is not None:
        embedder_of(model).fit(moments)
    return model


def has_depth(model: nn.Module) -> bool:
    """Whether the model, or the one inside a wrapper of peft's, takes ``depth_stats``."""
    return hasattr(unwrapped(model), _HOOK)


def depth_config(model: nn.Module) -> DepthConfig:
    """Return what the model's ``depth_stats`` must be. Raises :class:`UsageError` for a model without depth."""
    return DepthConfig.from_dict(getattr(checked(model).config, CONFIG_KEY), type(model).__name__)


def embedder_of(model: nn.Module) -> DepthEmbedder:
    """Return the model's embedder, the trained copy if peft made one. Raises :class:`UsageError` without depth."""
    embedder = getattr(checked(model), EMBEDDER)
    adapters = getattr(embedder, "modules_to_save", None)
    if adapters is not None and embedder.active_adapters:
        embedder = adapters[embedder.active_adapters[0]]
    return cast("DepthEmbedder", embedder)


def site_hook(model: nn.Module) -> SiteHook:
    """Return the hooks of the model's site. Raises :class:`UsageError` for a model without depth."""
    return cast("SiteHook", getattr(checked(model), _HOOK))


@contextmanager
def given_depth(model: nn.Module, depth_stats: Tensor, **inputs: Any) -> Iterator[None]:
    """Give a model ``depth_stats`` for calls other than ``forward`` and ``generate``, such as ``get_image_features``.

    ``inputs`` are the arguments of the call; only models that pad tiles need them (``pixel_values``, ``image_sizes``).
    Raises :class:`UsageError` for a model without depth, and if no image was encoded inside.
    """
    with active(_call(checked(model), depth_stats, inputs)):
        yield


def refuse_depth(model: Model) -> Model:
    """Return ``model``, which has no depth, changed so that ``forward`` raises :class:`UsageError` for ``depth_stats``.

    Most models of transformers hand unknown arguments on until nobody looks at them: a model that was loaded without
    its depth would answer as if there were no depth. :func:`add_depth` takes the refusal back.
    """
    inner = unwrapped(model)
    if not has_depth(model) and not hasattr(inner, _REFUSAL):
        setattr(inner, _REFUSAL, inner.register_forward_pre_hook(_refuse, with_kwargs=True))
    return model


@cache
def depth_class(base: Any) -> Any:
    """Return the subclass of a model class of transformers that takes ``depth_stats``.

    It has the name of its base, so that plain transformers loads what it saved. A model that it loads or makes from a
    configuration with ``mvde_depth`` has depth.
    """

    class WithDepth(base):  # type: ignore[misc]
        # A bf16 model's embedder is loaded as it was saved, and a quantised model's is not quantised.
        _keep_in_fp32_modules_strict = _with_embedder(base, "_keep_in_fp32_modules_strict")
        _keep_in_fp32_modules = _with_embedder(base, "_keep_in_fp32_modules")

        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            stored = getattr(config, CONFIG_KEY, None)
            if stored is not None:
                _attach(self, DepthConfig.from_dict(stored, "config.json"))

        def forward(self, *args: Any, depth_stats: Tensor | None = None, **kwargs: Any) -> Any:
            is_inside = current_call(self.__dict__[_HOOK]) is not None  # of generate, or of given_depth
            if depth_stats is None and (is_inside or not torch.is_grad_enabled()):
                return super().forward(*args, **kwargs)
            with active(_call(self, depth_stats, _named(base, args, kwargs))):
                return super().forward(*args, **kwargs)

        def generate(self, *args: Any, depth_stats: Tensor | None = None, **kwargs: Any) -> Any:
            # Where images are encoded differs between versions of transformers (before the first forward, or in it),
            # and an argument of forward alone is dropped without a word: depth is given for all that generate does.
            if depth_stats is None:
                return super().generate(*args, **kwargs)
            with torch.no_grad(), active(_call(self, depth_stats, kwargs)):
                return super().generate(*args, **kwargs)

        def _expand_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
            # For beams, versions that encode images in the first forward repeat pixel_values before it.
            expand = super()._expand_inputs_for_generation
            call, pixels = current_call(self.__dict__[_HOOK]), kwargs.get("pixel_values")
            expanded = expand(*args, **kwargs)
            if call is not None and call.stats is not None and pixels is not None:
                as_pixels = expand(*args, **{**kwargs, "pixel_values": _as_pixels(call.stats, pixels, kwargs)})
                call.replace(_as_rows(as_pixels[1]["pixel_values"], call.stats), expanded[1])
            return expanded

        def __reduce_ex__(self, protocol: Any) -> Any:
            return _new, (base,), self.__dict__

    WithDepth.forward.__signature__ = _signature(base)  # type: ignore[attr-defined]
    WithDepth.__name__, WithDepth.__qualname__, WithDepth.__module__ = base.__name__, base.__qualname__, base.__module__
    return WithDepth


def _with_embedder(base: Any, names: str) -> list[str]:
    """The class's list of modules, and the embedder."""
    return [EMBEDDER, *(getattr(base, names, None) or ())]


def _attach(model: nn.Module, config: DepthConfig) -> None:
    """Give ``model`` its embedder, its hooks, and the record in its configuration."""
    site = site_of(model, config.site)
    width = config.width or width_of(model)
    embedder = DepthEmbedder(config.columns, width, config.hidden)
    device = next((parameter.device for parameter in model.get_submodule(site.path).parameters()), None)
    if hasattr(model, _REFUSAL):
        getattr(model, _REFUSAL).remove()
    hook = SiteHook(site)
    hook.attach(model)
    setattr(model, EMBEDDER, embedder if device is None else embedder.to(device))
    setattr(model, _HOOK, hook)
    setattr(model.config, CONFIG_KEY, replace(config, site=site, width=width).to_dict())


def _call(model: nn.Module, stats: Tensor | None, inputs: Mapping[str, Any]) -> DepthCall:
    hook, embedder = getattr(model, _HOOK), getattr(model, EMBEDDER)
    if stats is None:
        return DepthCall(hook, embedder, model.config, None, {})
    if not isinstance(stats, Tensor) or stats.ndim < 2:
        got = tuple(stats.shape) if isinstance(stats, Tensor) else type(stats).__name__
        raise UsageError(
            f"depth_stats must be a tensor (B, N, S), (images, tiles, N, S) or (patches, S), but got {got}"
        )
    if inputs.get("pixel_values_videos") is not None:
        raise UsageError("depth_stats are for pictures, but pixel_values_videos are given too: leave one of them out")
    return DepthCall(hook, embedder, model.config, stats, inputs)


def _as_pixels(stats: Tensor, pixels: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """``stats`` with the first dimension of ``pixels``, so that they are repeated alike for beams.

    Rows of padded pictures of different sizes (Pixtral's) are padded with NaN.
    """
    if len(stats) == len(pixels):
        return stats
    sizes = inputs.get("image_sizes")
    if stats.ndim != 2 or sizes is None or len(sizes) != len(pixels):
        raise UsageError(
            f"depth_stats {tuple(stats.shape)} and pixel_values {tuple(pixels.shape)} differ in their first dimension, "
            f"so they cannot be repeated together for beams; make both with the DepthProcessor"
        )
    areas = torch.as_tensor(sizes).prod(dim=-1)
    counts = (areas * len(stats)).div(areas.sum(), rounding_mode="floor").tolist()
    pictures = list(torch.split(stats, counts))
    return torch.nn.utils.rnn.pad_sequence(pictures, batch_first=True, padding_value=float("nan"))


def _as_rows(repeated: Tensor, stats: Tensor) -> Tensor:
    """Undo :func:`_as_pixels` for statistics that were repeated."""
    if repeated.ndim == stats.ndim:
        return repeated
    rows = repeated.flatten(0, 1)
    return rows[~rows.isnan().any(dim=-1)]


def _named(base: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """Arguments of ``base.forward`` by name."""
    if not args:
        return kwargs
    return inspect.signature(base.forward).bind_partial(None, *args, **kwargs).arguments


def _signature(base: type[Any]) -> inspect.Signature:
    """Signature of ``base.forward`` with ``depth_stats``: Trainer keeps the columns that it finds there."""
    signature = inspect.signature(base.forward)
    parameters = list(signature.parameters.values())
    is_last_open = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    at = len(parameters) - is_last_open
    depth = inspect.Parameter("depth_stats", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters[:at], depth, *parameters[at:]])


def _refuse(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if kwargs.get("depth_stats") is not None:
        raise UsageError(_without_depth(module))


def _without_depth(model: nn.Module) -> str:
    return (
        f"this {type(model).__name__} has no depth: give it depth with mvde.vlm.add_depth(model), or load a model that "
        f"was saved with depth by mvde.vlm.from_pretrained"
    )


def _new(base: Any) -> Any:
    """Return an empty object of the class, for copies and pickles."""
    cls: Any = depth_class(base)
    return cls.__new__(cls)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself, inside a wrapper of peft's, of data parallelism or of torch.compile."""
    model = without_parallel(model)
    get_base_model = getattr(model, "get_base_model", None)
    return model if get_base_model is None else cast("nn.Module", get_base_model())


def without_parallel(model: nn.Module) -> nn.Module:
    """Return the model or peft's wrapper inside wrappers of data parallelism and of torch.compile."""
    for name in ("module", "_orig_mod"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module):
            return without_parallel(inner)
    return model


def checked(model: nn.Module) -> Any:
    """Return the model inside its wrappers. Raises :class:`UsageError` if it has no depth."""
    inner = unwrapped(model)
    if not hasattr(inner, _HOOK):
        raise UsageError(_without_depth(inner))
    return inner
