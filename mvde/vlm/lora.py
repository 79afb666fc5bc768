"""Low-rank adapters (LoRA, Hu et al., 2021) on the language model of a vision-language model, using peft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from mvde.errors import MissingDependencyError, UsageError
from mvde.vlm.attach import EMBEDDER, has_depth

DEFAULT_TARGETS = ("q_proj", "v_proj")


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = DEFAULT_TARGETS,
    dropout: float = 0.0,
) -> Any:
    """Return a ``peft.PeftModel`` with adapters on the language model's linear layers named ``targets``.

    Only the adapters and the depth embedder train; both are in what ``save_pretrained`` writes. The tower has no
    adapters even where its layers have the same names, as ``q_proj`` does in SigLIP and in Llama.

    Raises :class:`UsageError` for a name that no linear layer of the language model has, a rank below 1, and a model
    that has adapters already.
    """
    peft = _peft()
    if hasattr(model, "peft_config"):
        raise UsageError("the model has adapters already; merge them first (model.merge_and_unload())")
    if rank < 1:
        raise UsageError(f"the rank of a LoRA adapter must be at least 1, but got {rank}")
    path = language_model_path(model)
    linear = {
        name.rpartition(".")[2]
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = [target for target in targets if target not in linear]
    if unknown or not targets or isinstance(targets, str):
        raise UsageError(
            f"no linear layer of the language model is named {unknown or targets!r}; use {', '.join(sorted(linear))}"
        )
    names = "|".join(map(re.escape, targets))
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf"{re.escape(path)}\.(.*\.)?({names})",
        modules_to_save=[EMBEDDER] if has_depth(model) else None,
        bias="none",
    )
    return peft.get_peft_model(model, config)


def language_model_path(model: nn.Module) -> str:
    """Return the name of the module in ``model`` that holds the layers of its language model.

    Raises :class:`UsageError` if the model does not tell.
    """
    get_decoder = getattr(model, "get_decoder", None)
    decoder = get_decoder() if get_decoder is not None else None
    names = (name for name, module in model.named_modules() if module is decoder and module is not model)
    path: str | None = next(names, None)
    if not path:
        raise UsageError(
            f"{type(model).__name__} does not tell which part is its language model (get_decoder); "
            f"attach adapters with peft.get_peft_model and modules_to_save=['{EMBEDDER}']"
        )
    return path


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError.for_extra("peft", "vlm", "LoRA adapters") from error
    return peft
