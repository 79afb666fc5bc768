"""Position embeddings of a square native grid, and resampling to other patch grids."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mvde.errors import ResolutionError


def resample_position(
    position: Tensor, grid: tuple[int, int], mode: str = "bicubic", antialias: bool = False
) -> Tensor:
    """Resample a position embedding (side * side, D) to (1, rows * columns, D) for ``grid`` = (rows, columns).

    Without aligned corners. By default as ``interpolate_pos_encoding=True`` does in transformers' SigLIP, so that
    checkpoints stay valid at other resolutions. The native grid is returned unchanged. Differentiable.
    """
    side = round(position.shape[0] ** 0.5)
    if grid == (side, side):
        return position[None]
    native = rearrange(position, "(rows columns) d -> 1 d rows columns", rows=side)
    resampled = F.interpolate(native, size=grid, mode=mode, align_corners=False, antialias=antialias)
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
    """Learned position embedding of a square native grid; gradients flow through the resampling.

    ``mode`` and ``antialias`` are those of the resampling in the tower's own implementation.
    """

    def __init__(self, num_positions: int, width: int, mode: str = "bicubic", antialias: bool = False) -> None:
        super().__init__()
        self.mode, self.antialias = mode, antialias
        self.weight = nn.Parameter(torch.zeros(num_positions, width))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding (1, rows * columns, D) of ``grid`` = (rows, columns)."""
        return resample_position(self.weight, grid, self.mode, self.antialias)


class FixedPositionEmbedding(nn.Module):
    """Constant position embedding of one grid, so that an exported graph contains no resampling."""

    weight: Tensor

    def __init__(self, weight: Tensor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("weight", weight.detach().clone())

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the constant (1, rows * columns, D). Raises ResolutionError for any other grid."""
        _check_grid(grid, self.grid)
        return self.weight


class RotaryEmbedding(nn.Module):
    """Rotary position embedding of DINOv3: an angle for each patch and channel of a head of ``head_dim`` channels.

    The coordinates of patch centres run from -1 to 1 over either side, whatever the resolution. They are not shifted or
    scaled at random in training.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        self.head_dim, self.theta = head_dim, theta

    def forward(self, grid: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine (rows * columns, head_dim), with the dtype and device of ``like``."""
        exponents = torch.arange(0, 1, 4 / self.head_dim, dtype=torch.float32, device=like.device)
        frequencies = 1 / self.theta**exponents  # (head_dim / 4,)
        rows, columns = (
            2 * (torch.arange(side, dtype=torch.float32, device=like.device) + 0.5) / side - 1 for side in grid
        )
        centres = torch.cartesian_prod(rows, columns)
        angles = (2 * math.pi * centres[:, :, None] * frequencies).flatten(1).tile(2)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


class FixedRotaryEmbedding(nn.Module):
    """Constant rotary embedding of one grid, so that an exported graph contains no trigonometry."""

    cos: Tensor
    sin: Tensor

    def __init__(self, cos: Tensor, sin: Tensor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, grid: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the constants, with the dtype of ``like``. Raises ResolutionError for any other grid."""
        _check_grid(grid, self.grid)
        return self.cos.to(like.dtype), self.sin.to(like.dtype)


def _check_grid(grid: tuple[int, int], fixed: tuple[int, int]) -> None:
    if grid != fixed:
        raise ResolutionError(
            f"this model is fixed to a patch grid of {fixed[0]}x{fixed[1]}, but got {grid[0]}x{grid[1]}; "
            f"use at_resolution() for another"
        )
