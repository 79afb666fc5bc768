"""Initialisation of a tower trained from scratch: whitened patches and mimetic attention.

Pixels of a patch are strongly correlated, so random filters all respond to its brightness, and a patchified stem learns
edges late (Xiao et al., 2021); whitening gives every kept component the same variance from the first step. Random
attention mixes all patches equally; mimetic initialisation (Trockman and Kolter, 2023) gives queries and keys a common
part, so that with sinusoidal positions a patch first attends to itself and its neighbours, as in pretrained towers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvde.errors import ConfigError

# Components below this fraction of the mean variance are mostly sensor noise and are not amplified.
NOISE_FLOOR = 1e-3
# Weights of noise and identity in W_q' W_k and W_o W_v, from the paper.
QUERY_KEY = (0.7, 0.7)
VALUE_OUT = (0.4, -0.4)


@torch.no_grad()
def initialize_structured(backbone: Any, pixels: Tensor) -> None:
    """Whiten the patch embedding of a TowerBackbone over ``pixels`` (B, 3, H, W, normalised); mimetic attention.

    Raises ConfigError for a tower whose attention is not that of SigLIP and CLIP.
    """
    if not all(hasattr(layer, "self_attn") for layer in backbone.layers):
        raise ConfigError("train.start: structured is for towers like SigLIP and CLIP, not for DINO; use random")
    whiten_patch_embedding(backbone.patch_embedding, pixels)
    for layer in backbone.layers:
        mimic_attention(layer.self_attn)


@torch.no_grad()
def whiten_patch_embedding(embedding: nn.Conv2d, pixels: Tensor) -> None:
    """Set the weights so that outputs over the patches of ``pixels`` (B, 3, H, W, normalised) are uncorrelated.

    Each output has variance 1, or less if the component is below the noise floor. Raises ConfigError if a patch has
    fewer values than the embedding has channels.
    """
    channels, (_, patch) = embedding.out_channels, embedding.kernel_size
    values = F.unfold(pixels.double(), patch, stride=patch).transpose(1, 2).flatten(0, 1)  # (patches, 3 * p * p)
    if values.shape[1] < channels:
        raise ConfigError(
            f"train.start: structured needs at most {values.shape[1]} channels for patches of {patch}, "
            f"but the tower has {channels}; use random"
        )
    mean = values.mean(dim=0)
    centred = values - mean
    variances, components = torch.linalg.eigh(centred.T @ centred / len(centred))  # ascending
    variances, components = variances[-channels:].flip(0), components[:, -channels:].flip(1)
    # The sign of an eigenvector is arbitrary; fixing it makes the result machine-independent.
    components = components * torch.where(components.sum(dim=0) < 0, -1.0, 1.0)
    filters = (components / (variances.clamp_min(0) + NOISE_FLOOR * variances.mean()).sqrt()).T
    embedding.weight.copy_(filters.reshape(embedding.weight.shape))
    if embedding.bias is not None:
        embedding.bias.copy_(-(filters @ mean))


@torch.no_grad()
def mimic_attention(attention: Any) -> None:
    """Set the projections of one attention so that W_q' W_k and W_o W_v are noise plus a multiple of the identity.

    ``attention`` has ``num_heads``, ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``, as in transformers.
    """
    width = attention.out_proj.weight.shape[0]
    head = width // attention.num_heads
    for first in range(0, width, head):
        left, values, right = _decomposed(width, *QUERY_KEY)
        root = values[:head].sqrt()
        attention.q_proj.weight[first : first + head] = (left[:, :head] * root).T
        attention.k_proj.weight[first : first + head] = (right[:, :head] * root).T
    left, values, right = _decomposed(width, *VALUE_OUT)
    attention.out_proj.weight.copy_(left * values.sqrt())
    attention.v_proj.weight.copy_((right * values.sqrt()).T)


def _decomposed(width: int, noise: float, identity: float) -> tuple[Tensor, Tensor, Tensor]:
    """Factors (U, S, V) of ``noise`` * N(0, 1 / width) + ``identity`` * I, a (width, width) matrix U diag(S) V'."""
    matrix = noise * torch.randn(width, width) / width**0.5 + identity * torch.eye(width)
    left, values, right_t = torch.linalg.svd(matrix)
    return left, values, right_t.T
