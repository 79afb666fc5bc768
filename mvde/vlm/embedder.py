"""Tokens from patch statistics, to be added to the image tokens of a vision tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvde.errors import UsageError
from mvde.vlm.config import RAYS, check_columns, evidence_column

FLOOR = 1e-4
"""Added before the logarithm, in m, m2 or m/px: below a depth camera's resolution, and keeps it finite at 0."""

SMALLEST_DEVIATION = 1e-3
"""Smallest standard deviation that :meth:`DepthEmbedder.fit` stores; keeps a constant column finite."""

_LINEAR = ("valid", "conf", *RAYS)  # within a decade, or signed


class DepthEmbedder(nn.Module):
    """Tokens (..., N, width) from patch statistics (..., N, S): logarithm, standardisation and a two-layer MLP.

    Statistics in m, m2 and m/px are non-negative and span decades, hence the logarithm; ``valid``, ``conf``
    and the viewing rays enter as they are. Each column is standardised with the moments stored by :meth:`fit`. Both
    steps are computed in fp32 and the moments stay in fp32 whatever the module is cast to: in bf16, distances that
    differ by less than 0.4 % would be equal.

    The last layer is zero at first, so that an untrained embedder adds 0, and its gradient is not. A patch without
    depth gives exactly 0 at all times: its row is 0 in ``valid`` (or in ``mean``, ``min`` or ``max`` where ``valid`` is
    no column), or is not finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, columns: Sequence[str], width: int, hidden: int = 256) -> None:
        super().__init__()
        self.columns = check_columns(columns)
        for name, size in (("width", width), ("hidden", hidden)):
            if size < 1:
                raise UsageError(f"{name} of a DepthEmbedder must be at least 1, but got {size}")
        num_columns = len(self.columns)
        self.register_buffer("mean", torch.zeros(num_columns, dtype=torch.float32))
        self.register_buffer("std", torch.ones(num_columns, dtype=torch.float32))
        self.layers = nn.Sequential(nn.Linear(num_columns, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.reset_last_layer()

    @torch.no_grad()
    def reset_last_layer(self) -> None:
        """Set the last layer to zero, so that tokens are 0 and the model is unchanged."""
        last = self._last_layer
        last.weight.zero_()
        last.bias.zero_()

    def forward(self, stats: Tensor) -> Tensor:
        """Return tokens (..., N, width), in the dtype of the layers, of ``stats`` (..., N, S).

        Raises :class:`UsageError` unless S is the number of columns.
        """
        known, rows = self._standardised(stats)
        tokens: Tensor = self.layers(rows.to(self._last_layer.weight.dtype))
        # -0.0 is the number that changes no bit of what it is added to: +0.0 turns -0.0 into +0.0.
        return torch.where(known[..., None], tokens, -0.0)

    @torch.no_grad()
    def fit(self, stats: Tensor) -> None:
        """Set each column's mean and deviation from the patches of ``stats`` (..., N, S) that have depth.

        Raises :class:`UsageError` if no patch has depth.
        """
        known, rows = self._transformed(stats)
        rows = rows[known]
        if not len(rows):
            raise UsageError(f"depth_stats {tuple(stats.shape)} hold no patch with depth to take moments from")
        self.mean.copy_(rows.mean(dim=0))
        self.std.copy_(rows.std(dim=0, correction=0).clamp(min=SMALLEST_DEVIATION))

    def extra_repr(self) -> str:
        """Return the columns, for ``print(model)``."""
        return f"columns={', '.join(self.columns)}"

    @property
    def width(self) -> int:
        """Width of the tokens."""
        return self._last_layer.out_features

    @property
    def _last_layer(self) -> nn.Linear:
        layer = self.layers[2]
        assert isinstance(layer, nn.Linear)
        return layer

    def _standardised(self, stats: Tensor) -> tuple[Tensor, Tensor]:
        known, rows = self._transformed(stats)
        return known, (rows - self.mean) / self.std

    def _transformed(self, stats: Tensor) -> tuple[Tensor, Tensor]:
        """Which patches have depth, and the columns before standardisation, 0 in rows without depth."""
        if stats.ndim < 2 or stats.shape[-1] != len(self.columns):
            raise UsageError(
                f"depth_stats must be (..., N, {len(self.columns)}) with the columns {', '.join(self.columns)}, "
                f"but got {tuple(stats.shape)}; ask the DepthProcessor for the columns of this model"
            )
        stats = stats.float()
        known = (stats[..., evidence_column(self.columns)] > 0) & stats.isfinite().all(dim=-1)
        stats = torch.where(known[..., None], stats, 1.0)  # no NaN or -22 sigma reaches a layer, or its gradient
        is_linear = torch.tensor([name in _LINEAR for name in self.columns], device=stats.device)
        return known, torch.where(is_linear, stats, (stats.clamp(min=0) + FLOOR).log())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Apply ``fn`` as modules do, and keep the moments in fp32."""
        moments = {name: getattr(self, name) for name in ("mean", "std")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in moments.items():
            after = getattr(self, name)
            if after.dtype != torch.float32:
                setattr(self, name, before.to(after.device) if not after.is_meta else after.float())
        return self
