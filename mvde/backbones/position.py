"""Position embeddings of a square native grid, and resampling to other patch grids."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mvde.errors import ResolutionError


def resample_position(position: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample a position embedding (side * side, D) to (1, rows * columns, D) for ``grid`` = (rows, columns).

    Bicubic without aligned corners, as ``interpolate_pos_encoding=True`` does in transformers' SigLIP, so that
    checkpoints stay valid at other resolutions. The native grid is returned unchanged. Differentiable.
    """
    side = round(position.shape[0] ** 0.5)
    if grid == (side, side):
        return position[None]
    native = rearrange(position, "(rows columns) d -> 1 d rows columns", rows=side)
    resampled = F.interpolate(native, size=grid, mode="bicubic", align_corners=False)
    return rearrange(resampled, "1 d rows columns -> 1 (rows columns) d")


def sincos_position(side: int, width: int) -> Tensor:
    """Two-dimensional sine-cosine embedding (side * side, width), row-major; ``width`` must be a multiple of 4.

    As in MAE (He et al., 2022): an initialisation that encodes distance, which training from scratch needs.
    """
    frequency = 1.0 / 10_000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency  # (side, width / 4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return rearrange(torch.cat([columns, rows], dim=2), "rows columns d -> (rows columns) d").float()


class PositionEmbedding(nn.Module):
    """Learned position embedding of a square native grid; gradients flow through the resampling."""

    def __init__(self, num_positions: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_positions, width))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding (1, rows * columns, D) of ``grid`` = (rows, columns)."""
        return resample_position(self.weight, grid)


class FixedPositionEmbedding(nn.Module):
    """Constant position embedding of one grid, so that an exported graph contains no resampling."""

    weight: Tensor

    def __init__(self, weight: Tensor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("weight", weight.detach().clone())

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the constant (1, rows * columns, D). Raises ResolutionError for any other grid."""
        if grid != self.grid:
            raise ResolutionError(
                f"this model is fixed to a patch grid of {self.grid[0]}x{self.grid[1]}, but got {grid[0]}x{grid[1]}; "
                f"use at_resolution() for another"
            )
        return self.weight
