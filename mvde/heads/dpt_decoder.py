"""DPT decoder (Ranftl et al., 2021): tapped feature maps of one stride in, a full-resolution map out.

Reassemble brings the taps to strides 4, 8, 16, 32 (for patch 14: 3.5, 7, 14, 28); fusion blocks merge them from coarse
to fine; the head runs at stride 2 and its output is upsampled bilinearly, because convolutions at full resolution would
cost more than everything before them. All upsampling is bilinear without aligned corners, to explicit sizes, which all
runtimes implement identically.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F


def enlarge(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample (B, C, h, w) bilinearly to (B, C, *size)."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


class Reassemble(nn.Module):
    """Reassemble one tap (B, D, h, w) to (B, C, h * factor, w * factor): project, resize, mix."""

    def __init__(self, width: int, channels: int, level: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(width, channels, kernel_size=1)
        self.resize = _resize(channels, level)
        self.mix = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the reassembled map (B, C, h * factor, w * factor)."""
        mixed: Tensor = self.mix(self.resize(self.project(features)))
        return mixed


def _resize(channels: int, level: int) -> nn.Module:
    """Resampling of a level: 0 is four times finer than the patch grid, 1 twice, 2 equal, 3 half as fine, and so on."""
    if level < 2:
        factor = 4 >> level
        return nn.ConvTranspose2d(channels, channels, kernel_size=factor, stride=factor)
    if level == 2:
        return nn.Identity()
    stride = 1 << (level - 2)
    return nn.Conv2d(channels, channels, kernel_size=stride + 1, stride=stride, padding=stride // 2)


class ResidualConvUnit(nn.Module):
    """Pre-activation residual unit of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` plus the unit's residual, same shape."""
        change: Tensor = self.conv2(F.relu(self.conv1(F.relu(features))))
        return features + change


class Fusion(nn.Module):
    """Fusion of a coarse and a finer map: add, refine, project, and upsample to ``size``.

    The 1x1 projection precedes the upsampling. DPT has it after; the two commute, since bilinear weights sum to one,
    and here it processes a quarter of the pixels.
    """

    def __init__(self, channels: int, merges: bool) -> None:
        super().__init__()
        self.lateral = ResidualConvUnit(channels) if merges else None
        self.refine = ResidualConvUnit(channels)
        self.project = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, coarse: Tensor | None, lateral: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the fused map (B, C, *size); ``coarse`` is ``None`` at the coarsest level."""
        merged = lateral if coarse is None or self.lateral is None else coarse + self.lateral(lateral)
        return enlarge(self.project(self.refine(merged)), size)


class MetricActivation(nn.Module):
    """Depth in metres from raw outputs: ``exp(ln min + sigmoid(raw) * (ln max - ln min))``, in [min, max].

    Logarithmic, since relative depth errors matter; at ``raw = 0`` the depth is ``sqrt(min * max)``.
    """

    def __init__(self, min_depth_m: float, max_depth_m: float) -> None:
        super().__init__()
        self.min_depth_m, self.max_depth_m = min_depth_m, max_depth_m

    def forward(self, raw: Tensor) -> Tensor:
        """Return depth in metres, float32, in the shape of ``raw``."""
        low, span = math.log(self.min_depth_m), math.log(self.max_depth_m / self.min_depth_m)
        depth_m = (low + span * raw.float().sigmoid()).exp()
        return depth_m.clamp(self.min_depth_m, self.max_depth_m)  # exp(log(x)) may differ from x by a rounding error


class RelativeActivation(nn.Module):
    """Positive relative depth from raw outputs: ``exp(raw)``; only ratios within an image are meaningful."""

    def forward(self, raw: Tensor) -> Tensor:
        """Return relative depth, float32, in the shape of ``raw``."""
        return raw.float().exp()


class DPTDecoder(nn.Module):
    """Raw depth (B, H, W) from feature maps (B, D, rows, columns), one per fusion block, shallow to deep."""

    def __init__(self, width: int, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.reassemble = nn.ModuleList(Reassemble(width, channels, level) for level in range(num_blocks))
        self.fusion = nn.ModuleList(Fusion(channels, merges=level < num_blocks - 1) for level in range(num_blocks))
        hidden = max(channels // 2, 16)
        self.head = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),  # the largest maps of the model
            nn.Conv2d(hidden, 32, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, kernel_size=1),
        )

    def forward(self, features: tuple[Tensor, ...], resolution: tuple[int, int]) -> Tensor:
        """Return raw depth (B, H, W) at ``resolution`` = (H, W)."""
        laterals = [block(tap) for block, tap in zip(self.reassemble, features, strict=True)]
        rows, columns = int(laterals[0].shape[2]), int(laterals[0].shape[3])
        sizes = [(2 * rows, 2 * columns), *((int(x.shape[2]), int(x.shape[3])) for x in laterals[:-1])]
        fused: Tensor | None = None
        for level in reversed(range(len(laterals))):
            fused = self.fusion[level](fused, laterals[level], sizes[level])
        raw: Tensor = enlarge(self.head(fused), resolution)
        return raw.squeeze(1)
