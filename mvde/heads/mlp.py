"""Projection of patch statistics to tokens of a vision-language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvde.errors import UsageError

_FLOOR = 1e-4  # m, m2 or m/px: below a depth camera's resolution, and keeps the logarithm finite at 0


class PatchStatsProjector(nn.Module):
    """Tokens (B, N, D) from patch statistics (B, N, S): logarithm, standardisation, and a two-layer MLP.

    One token per patch, in the backbone's order, so that it can be added to or concatenated with the image token of the
    same patch. The MLP is that of LLaVA-1.5 (Liu et al., 2023). Statistics are non-negative and span decades (a
    variance of 1e-6 m2 on a table, 4 m2 at an edge), hence the logarithm; each column is standardised with the moments
    stored by :meth:`fit`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_stats: int, token_width: int, hidden_width: int | None = None) -> None:
        super().__init__()
        hidden = hidden_width or token_width
        self.register_buffer("mean", torch.zeros(num_stats))
        self.register_buffer("std", torch.ones(num_stats))
        self.layers = nn.Sequential(nn.Linear(num_stats, hidden), nn.GELU(), nn.Linear(hidden, token_width))

    def forward(self, stats: Tensor) -> Tensor:
        """Return tokens (B, N, D) of non-negative ``stats`` (B, N, S). Raises :class:`UsageError` for another shape."""
        tokens: Tensor = self.layers((self._log(stats) - self.mean) / self.std)
        return tokens

    @torch.no_grad()
    def fit(self, stats: Tensor) -> None:
        """Set each column's mean and deviation from ``stats`` (B, N, S) of typical scenes."""
        rows = self._log(stats).flatten(0, 1)
        self.mean.copy_(rows.mean(dim=0))
        self.std.copy_(rows.std(dim=0, correction=0).clamp(min=1e-3))  # keeps a constant column finite

    def _log(self, stats: Tensor) -> Tensor:
        if stats.ndim != 3 or stats.shape[-1] != self.mean.shape[0]:
            raise UsageError(
                f"patch statistics must be (B, N, {self.mean.shape[0]}), but got {tuple(stats.shape)}; "
                f"request the projector's columns from depth_to_patch_stats"
            )
        return (stats + _FLOOR).log()
