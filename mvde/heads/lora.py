"""Low-rank adapters (LoRA, Hu et al., 2021) on a model's vision tower, using peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mvde.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from mvde.model import DepthModel

DEFAULT_TARGETS = ("q_proj", "v_proj")


def add_lora(
    model: DepthModel,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = DEFAULT_TARGETS,
    dropout: float = 0.0,
) -> int:
    """Attach adapters to the tower's linear layers named ``targets``; return the number of trainable parameters.

    The tower's own weights are frozen; the decoder is unchanged. Depth does not change until the adapters are trained,
    because their second factor is initialised to zero. Raises :class:`UsageError` for an unknown target or a rank below
    1.
    """
    peft = _peft()
    linear = {name.rpartition(".")[2] for name, module in model.backbone.named_modules() if _is_linear(module)}
    unknown = [target for target in targets if target not in linear]
    if unknown or not targets:
        raise UsageError(
            f"no linear layer of the tower is named {unknown or targets!r}; use {', '.join(sorted(linear))}"
        )
    if rank < 1:
        raise UsageError(f"the rank of a LoRA adapter must be at least 1, but got {rank}")
    model.backbone.requires_grad_(False)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=dropout, bias="none")
    peft.inject_adapter_in_model(config, model.backbone)
    return sum(p.numel() for name, p in model.backbone.named_parameters() if ".lora_" in name)


def merge_lora(model: DepthModel) -> int:
    """Merge the adapters into the weights, restoring the original architecture; return the number of layers.

    All parameters of the tower are trainable again. Raises :class:`UsageError` if no adapter is attached.
    """
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in model.backbone.named_modules() if isinstance(module, LoraLayer)]
    if not adapted:
        raise UsageError("the model has no LoRA adapters; attach them with add_lora(model)")
    for name, module in adapted:
        module.merge()
        parent, _, attribute = name.rpartition(".")
        setattr(model.backbone.get_submodule(parent), attribute, module.get_base_layer())
    model.backbone.requires_grad_(True)
    return len(adapted)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError.for_extra("peft", "model", "LoRA adapters") from error
    return peft


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear)
