"""Optimisers, learning-rate schedules and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mvde.config import TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for hidden 2-D weights (Jordan et al., 2024).

    ``torch.optim.Muon`` does the same one matrix at a time, always in bfloat16, which is emulated on processors without
    bf16 arithmetic; this one stacks matrices of equal shape and orthogonalises in ``dtype``: float32, or bfloat16 if
    the run computes in it (a third of the time on AMX). The update is scaled to the RMS of AdamW's (Liu et al., 2025),
    so that both share a learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    by_shape.setdefault(param.shape, []).append(param)
            for shape, params in by_shape.items():
                stacked = torch.stack([self._momentum(p, group["momentum"]) for p in params])
                directions = orthogonalised(stacked.to(self._dtype)).float()
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                for param, direction in zip(params, directions, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-rate)

    def _momentum(self, param: nn.Parameter, beta: float) -> Tensor:
        """Update and return the Nesterov momentum of ``param``."""
        gradient = param.grad
        assert gradient is not None
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - beta)
        return gradient.lerp(buffer, beta)


def orthogonalised(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """Matrices (n, rows, columns) with all singular values driven to about 1 by a quintic Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


def build_optimizers(
    backbone: nn.Module, rest: Iterable[nn.Parameter], train: TrainConfig
) -> list[torch.optim.Optimizer]:
    """Build the optimisers for the backbone (at ``lr * backbone_lr_scale``) and the rest (at ``lr``).

    Every group stores its full rate as ``base_lr`` and whether it belongs to the backbone as ``backbone``. Vectors
    (norms, biases) and position embeddings have no weight decay.
    """
    adamw, muon = _parameter_groups(backbone, list(rest), train)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, lr=train.lr, betas=(0.9, train.beta2), weight_decay=train.weight_decay)
    ]
    if muon:
        dtype = torch.bfloat16 if train.autocast == "bf16" else torch.float32
        optimizers.append(Muon(muon, lr=train.lr, weight_decay=train.weight_decay, dtype=dtype))
    return optimizers


def _parameter_groups(
    backbone: nn.Module, rest: list[nn.Parameter], train: TrainConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    hidden, matrices, vectors = [], [], []
    for name, param in backbone.named_parameters():
        if param.ndim < 2 or "embedding" in name:
            vectors.append(param)
        elif param.ndim == 2 and train.optimizer == "muon":
            hidden.append(param)
        else:
            matrices.append(param)
    rate = train.lr * train.backbone_lr_scale
    adamw = [
        {"params": matrices, "base_lr": rate, "backbone": True},
        {"params": vectors, "base_lr": rate, "backbone": True, "weight_decay": 0.0},
        {"params": [p for p in rest if p.ndim >= 2], "base_lr": train.lr, "backbone": False},
        {"params": [p for p in rest if p.ndim < 2], "base_lr": train.lr, "backbone": False, "weight_decay": 0.0},
    ]
    muon = [{"params": hidden, "base_lr": rate, "backbone": True}]
    return [g for g in adamw if g["params"]], [g for g in muon if g["params"]]


def rate_factor(step: int, num_steps: int, train: TrainConfig) -> float:
    """Fraction of the full learning rate at ``step``: linear warm-up, then the schedule over the final steps."""
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    decay_steps = train.decay_steps or max(num_steps - train.warmup_steps, 1)
    progress = min(max((step - (num_steps - decay_steps)) / decay_steps, 0.0), 1.0)
    if train.schedule == "cosine":
        return rate_factor_cosine(progress)
    return 1 - progress if train.schedule == "linear" else 1.0


def rate_factor_cosine(progress: float) -> float:
    """Fraction of the full rate at ``progress`` (0 to 1) of a half cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def backbone_factor(step: int, train: TrainConfig) -> float:
    """Additional factor on the backbone's rate: 0 while it is frozen, then a separate warm-up."""
    since = step - train.freeze_backbone_steps
    if since < 0:
        return 0.0
    return min((since + 1) / train.warmup_steps, 1.0) if train.freeze_backbone_steps and train.warmup_steps else 1.0


def set_rates(optimizers: Iterable[torch.optim.Optimizer], step: int, num_steps: int, train: TrainConfig) -> None:
    """Set every group's learning rate for ``step``."""
    factor = rate_factor(step, num_steps, train)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor * (backbone_factor(step, train) if group["backbone"] else 1.0)


class MovingAverage:
    """Exponential moving average of a model's parameters, kept in float32.

    The decay grows with the step, ``min(decay, (1 + t) / (10 + t))``, so that the random initialisation is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's current weights; ``step`` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        params = [p.detach().float() for _, p in model.named_parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), params, 1 - decay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Swap the model's weights with the average; a second call restores them."""
        for name, param in model.named_parameters():
            kept = param.detach().clone()
            param.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)
