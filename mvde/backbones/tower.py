"""A vision tower that returns one feature map per tapped hidden state, whichever model it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from mvde.backbones.position import FixedPositionEmbedding, FixedRotaryEmbedding
from mvde.resolution import check_resolution


def tokens_from_map(features: Tensor) -> Tensor:
    """Tokens (B, rows * columns, D) in row-major order, from a feature map (B, D, rows, columns)."""
    return rearrange(features, "b d rows columns -> b (rows columns) d")


def map_from_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Feature map (B, D, rows, columns), from row-major patch tokens (B, rows * columns, D)."""
    return rearrange(tokens, "b (rows columns) d -> b d rows columns", rows=grid[0], columns=grid[1])


class TowerBackbone(nn.Module):
    """Encoder of a tower up to its deepest tap, without final normalisation and pooling head.

    ``taps`` are indices into the hidden states, where 0 is the input of the first layer. Layers past the deepest tap
    are dropped. ``prefix`` (1, P, D) holds the class token, with its position, and the register tokens: they take part
    in the attention, and are left out of the feature maps. ``norm`` precedes the layers (CLIP); ``rotary`` turns
    queries and keys (DINOv3); ``masked`` says that a layer requires the argument of an attention mask, which is None.
    """

    prefix_embedding: nn.Parameter | None

    def __init__(
        self,
        patch_embedding: nn.Conv2d,
        position: nn.Module | None,
        layers: Iterable[nn.Module],
        taps: tuple[int, ...],
        *,
        prefix: Tensor | None = None,
        norm: nn.Module | None = None,
        rotary: nn.Module | None = None,
        masked: bool = True,
    ) -> None:
        super().__init__()
        self.patch_embedding = patch_embedding
        self.position = position
        self.layers = nn.ModuleList(list(layers)[: max(taps)])
        self.taps = taps
        if prefix is not None and not isinstance(prefix, nn.Parameter):
            prefix = nn.Parameter(prefix.detach().clone())
        self.register_parameter("prefix_embedding", prefix)
        self.norm, self.rotary, self.masked = norm, rotary, masked

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embedding.kernel_size[0]

    @property
    def width(self) -> int:
        """Channels of each feature map."""
        return self.patch_embedding.out_channels

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return feature maps (B, D, H / patch, W / patch), one per tap, of normalised RGB pixels (B, 3, H, W).

        Pixels past the last whole patch are not seen, as in the towers themselves: 384 is cropped to 378 by patches of
        14.
        """
        embedded = self.patch_embedding(pixels)
        grid = (int(embedded.shape[2]), int(embedded.shape[3]))
        hidden = tokens_from_map(embedded)
        if self.position is not None:
            hidden = hidden + self.position(grid)
        if self.prefix_embedding is not None:
            hidden = torch.cat([self.prefix_embedding.expand(hidden.shape[0], -1, -1).to(hidden.dtype), hidden], dim=1)
        if self.norm is not None:
            hidden = self.norm(hidden)
        masks = (None,) if self.masked else ()
        turns = {} if self.rotary is None else {"position_embeddings": self.rotary(grid, hidden)}
        states = {0: hidden}
        for index, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, *masks, **turns)
            if index in self.taps:  # the others are freed: base's thirteen at 896 are 125 MB
                states[index] = hidden
        num_prefix = 0 if self.prefix_embedding is None else self.prefix_embedding.shape[1]
        return tuple(map_from_tokens(states[tap][:, num_prefix:], grid) for tap in self.taps)

    def train(self, mode: bool = True) -> TowerBackbone:
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
        for module in self.layers.modules():
            config: Any = getattr(module, "config", None)
            if config is not None:
                config._attn_implementation = implementation

    def at_resolution(self, resolution: tuple[int, int]) -> TowerBackbone:
        """Backbone with shared layers, and the positions of ``resolution`` (H, W) as constants."""
        check_resolution(resolution, self.patch_size)
        grid = (resolution[0] // self.patch_size, resolution[1] // self.patch_size)
        position, rotary = self.position, self.rotary
        with torch.no_grad():
            if position is not None:
                position = FixedPositionEmbedding(position(grid), grid)
            if rotary is not None:
                cos, sin = rotary(grid, self.patch_embedding.weight)
                rotary = FixedRotaryEmbedding(cos, sin, grid)
        return TowerBackbone(
            self.patch_embedding,
            position,
            self.layers,
            self.taps,
            prefix=self.prefix_embedding,
            norm=self.norm,
            rotary=rotary,
            masked=self.masked,
        )
