"""Training of the tower without its decoder: a linear head predicts depth from the tower's last tokens.

Early errors are mostly in the layout and scale of the scene, which the tower determines; the decoder and the
full-resolution loss cost as much as the tower itself. A stage with ``supervise: tokens`` omits them; the decoder is
trained in later stages. The head is not part of the saved model.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from mvde.backbones.tower import tokens_from_map
from mvde.heads.dpt_decoder import enlarge
from mvde.model import DepthModel

CELLS = 4
"""Cells per side of a patch; the head predicts a depth for each."""


class TokenSupervised(nn.Module):
    """``model`` with a linear head in place of its decoder."""

    def __init__(self, model: DepthModel) -> None:
        super().__init__()
        self.model = model
        self.norm = nn.LayerNorm(model.backbone.width)
        self.project = nn.Linear(model.backbone.width, CELLS * CELLS)

    def forward(self, images: Tensor, supervise: str) -> Tensor:
        """Depth (B, H, W) of the model, or (B, rows * CELLS, columns * CELLS) of the head, depending on ``supervise``.

        ``images`` are as for :class:`DepthModel`; rows and columns are those of the patch grid.
        """
        depth: Tensor = self.model(images) if supervise == "depth" else self._depth_of_cells(images)
        return depth

    @torch.no_grad()
    def predict_depth(self, images: Tensor) -> Tensor:
        """Depth (B, H, W) of the head in evaluation mode, upsampled bilinearly to the images' size."""
        was_training = self.training
        self.eval()
        try:
            depth = enlarge(self._depth_of_cells(images)[:, None], (int(images.shape[2]), int(images.shape[3])))
        finally:
            self.train(was_training)
        return depth[:, 0]

    def _depth_of_cells(self, images: Tensor) -> Tensor:
        deepest = max(range(len(self.model.backbone.taps)), key=self.model.backbone.taps.__getitem__)
        features = self.model.backbone(self.model.normalize(images))[deepest]
        raw = self.project(self.norm(tokens_from_map(features)))
        cells = rearrange(
            raw, "b (rows columns) (y x) -> b (rows y) (columns x)", rows=features.shape[2], y=CELLS, x=CELLS
        )
        depth: Tensor = self.model.activation(cells)
        return depth


def depth_at_cells(depth: Tensor, shape: tuple[int, int]) -> Tensor:
    """Depth (B, rows, columns) of the pixel nearest to each cell's centre, from depth (B, H, W), without averaging."""
    rows, columns = (
        ((torch.arange(cells, device=depth.device) + 0.5) * (side / cells)).long()
        for cells, side in zip(shape, depth.shape[1:], strict=True)
    )
    return depth[:, rows[:, None], columns]
