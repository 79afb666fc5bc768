"""Folders of models with depth: whole models, and adapters of peft beside the base model they belong to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvde.errors import CheckpointError, MissingDependencyError, UsageError
from mvde.publish import staged_write
from mvde.vlm.attach import EMBEDDER, add_depth, checked, depth_class, depth_config, unwrapped, without_parallel
from mvde.vlm.config import CONFIG_KEY, DepthConfig

BASE_KEY = "mvde_base"
"""Key of an adapter folder's ``config.json`` with values of its base model's weights."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_NUM_VALUES = 16
_NUM_ROWS = 1000  # of the embedding: rows that a larger vocabulary keeps
_ROUNDING = 1e-2  # fp16 and bf16 of one checkpoint differ by 0.4 %, two checkpoints by the size of a weight


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str], **options: Any) -> None:
    """Write a model with depth to ``folder``: all of it, or the adapters and the embedder of a model of peft's.

    ``config.json`` holds ``mvde_depth``; plain transformers loads a whole model without its depth. ``options`` are
    those of transformers' or peft's ``save_pretrained``. Files of the same names are replaced when all are written;
    others, such as a processor's, stay.

    Raises :class:`UsageError` for a model without depth, :class:`OutputError` if the files cannot be written.
    """
    saved: Any = without_parallel(model)
    inner, is_adapter = checked(saved), hasattr(saved, "peft_config")
    target = Path(folder)
    with staged_write(target, "model") as staging:
        saved.save_pretrained(staging, **options)
        if is_adapter:
            stored = inner.config.to_dict() | {BASE_KEY: _values(inner)}
            stored["architectures"] = [type(inner).__name__]
            text = json.dumps(stored, indent=2, sort_keys=True, default=str)
            (staging / "config.json").write_text(text + "\n", encoding="utf-8")
        written = {path.name for path in staging.iterdir()}
    for stale in {*target.glob("model*.safetensors"), *target.glob("model.safetensors.index.json")}:
        if not is_adapter and stale.name not in written:
            stale.unlink()


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    is_trainable: bool = False,
    **options: Any,
) -> Any:
    """Load a model with depth that :func:`save_pretrained` wrote: a whole one, or a ``peft.PeftModel`` on its base.

    ``source`` is a folder, or for whole models also a name on the Hugging Face Hub. ``base`` says where the base model
    of an adapter is now; by default, where it was. ``is_trainable`` loads an adapter for further training. ``options``
    are those of transformers' ``from_pretrained`` (``dtype``, ``device_map``, ``quantization_config`` ...). Only
    safetensors are read.

    Raises :class:`CheckpointError` for a folder without depth, with weights missing, or with an adapter of another base
    model.
    """
    folder, options = Path(source), {"use_safetensors": True, **options}
    if (folder / ADAPTER_CONFIG).is_file():
        return _load_adapter(folder, base, is_trainable, options)
    if base is not None:
        raise UsageError(f"{source} holds a whole model, so it has no base model: leave out base={str(base)!r}")
    config = _load_config(source, options)
    if getattr(config, CONFIG_KEY, None) is None:
        raise CheckpointError(
            f"{source}: config.json has no {CONFIG_KEY!r}, so the model has no depth; load it with transformers and "
            f"give it depth with mvde.vlm.add_depth(model)"
        )
    DepthConfig.from_dict(getattr(config, CONFIG_KEY), f"{source}/config.json")
    model, info = _load(depth_class(_class_of(config, source)), source, options | {"output_loading_info": True})
    missing = sorted(name for name in info["missing_keys"] if name.startswith(f"{EMBEDDER}."))
    if missing:
        raise CheckpointError(f"{source} lacks {', '.join(missing)}: save it again with mvde.vlm.save_pretrained")
    return model


def _load_adapter(folder: Path, base: Any, is_trainable: bool, options: dict[str, Any]) -> Any:
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise MissingDependencyError.for_extra("peft", "vlm", f"the adapter {folder}") from error
    record = _read_json(folder / ADAPTER_CONFIG)
    stored = _read_json(folder / "config.json")
    if CONFIG_KEY not in stored:
        raise CheckpointError(
            f"{folder}/config.json has no {CONFIG_KEY!r}, so it is not known what its depth_stats are; write adapters "
            f"with mvde.vlm.save_pretrained"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{folder} has no {ADAPTER_WEIGHTS}; weights in other formats are not read")
    config = DepthConfig.from_dict(stored[CONFIG_KEY], f"{folder}/config.json")
    source = base or record.get("base_model_name_or_path")
    if not source:
        raise CheckpointError(f"{folder}/{ADAPTER_CONFIG} names no base model: say where it is, base=...")
    model = _load_base(source, config, options)
    _check_base(folder, source, stored, model)
    found = _names_of_weights(folder)
    _check_complete(
        folder, {f"base_model.model.{EMBEDDER}.{name}" for name in model.depth_embedder.state_dict()} - found
    )
    try:
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=is_trainable)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} does not fit the base model {source}: {_first_lines(error)}") from error
    _check_complete(folder, set(get_peft_model_state_dict(adapted, save_embedding_layers=False)) - found)
    return adapted


def _load_base(source: Any, config: DepthConfig, options: dict[str, Any]) -> Any:
    """Return the base model with depth: its own if it was trained with depth before, a new embedder otherwise."""
    stored = getattr(_load_config(source, options), CONFIG_KEY, None)
    if stored is None:
        plain = _load_config(source, options)
        return add_depth(_load(_class_of(plain, source), source, options), config)
    if DepthConfig.from_dict(stored, f"{source}/config.json") != config:
        raise CheckpointError(
            f"the base model {source} takes other depth_stats than the adapter: {CONFIG_KEY} is {stored}, but the "
            f"adapter has {config.to_dict()}"
        )
    return from_pretrained(source, **options)


def _load_config(source: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    names = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token", "trust_remote_code")
    try:
        return AutoConfig.from_pretrained(source, **{key: options[key] for key in names if key in options})
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} holds no model of transformers: {_first_lines(error)}") from error


def _class_of(config: Any, source: Any) -> Any:
    """Return the class named in ``config.architectures``."""
    import transformers

    name = (getattr(config, "architectures", None) or [""])[0]
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise CheckpointError(
            f"{source}: architectures is {name!r}, which transformers {transformers.__version__} lacks"
        )
    return found


def _load(cls: Any, source: Any, options: dict[str, Any]) -> Any:
    try:
        return cls.from_pretrained(source, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{source} cannot be loaded: {_first_lines(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}; write adapters with mvde.vlm.save_pretrained"
        ) from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{path} must hold an object, but holds {type(plain).__name__}")
    return plain


def _check_base(folder: Path, source: Any, stored: dict[str, Any], model: nn.Module) -> None:
    """Raise unless ``model`` is the base that the adapter was trained on: its type, and values of its weights."""
    model_type = getattr(model.config, "model_type", None)
    if stored.get("model_type") != model_type:
        raise CheckpointError(
            f"{folder} is an adapter for a model of type {stored.get('model_type')!r}, but {source} is {model_type!r}; "
            f"give the base model that it was trained on: base=..."
        )
    expected, found = stored.get(BASE_KEY) or {}, _values(model)
    for name in expected.keys() & found.keys():
        one, other = (torch.tensor(values[name], dtype=torch.float64) for values in (expected, found))
        size = float(one.abs().max()) if len(one) else 0.0
        if one.shape != other.shape or not torch.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING * size):
            raise CheckpointError(
                f"{folder} is an adapter for another base model than {source}: their weights differ in {name}; give "
                f"the one that it was trained on: base=..."
            )


def _values(model: nn.Module) -> dict[str, list[float]]:
    """Return some values of the weights that adapters leave alone: enough to tell two checkpoints apart."""
    inner: Any = unwrapped(model)
    site = depth_config(inner).site
    assert site is not None
    chosen = {"the embedding": inner.get_input_embeddings().weight[:_NUM_ROWS]}
    at_site = next((p for p in inner.get_submodule(site.path).parameters() if p.is_floating_point()), None)
    if at_site is not None:
        chosen[site.path] = at_site
    return {name: _spread(weight) for name, weight in chosen.items() if weight.is_floating_point()}


def _spread(weight: torch.Tensor) -> list[float]:
    flat = weight.detach().reshape(-1)
    at = torch.linspace(0, len(flat) - 1, min(_NUM_VALUES, len(flat)), device=flat.device).long()
    return [round(value, 8) for value in flat[at].float().tolist()]


def _names_of_weights(folder: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / ADAPTER_WEIGHTS} cannot be read: {error}") from error


def _check_complete(folder: Path, missing: set[str]) -> None:
    if missing:
        raise CheckpointError(
            f"{folder / ADAPTER_WEIGHTS} lacks {', '.join(sorted(missing)[:3])}: it is incomplete or of another model; "
            f"save it again with mvde.vlm.save_pretrained"
        )


def _first_lines(error: Exception) -> str:
    """Beginning of a library's message, on one line."""
    return " ".join(str(error).split())[:300]
