"""The DPT decoder (Ranftl et al., 2021): tapped feature maps of one stride in, a full-resolution map out.

Reassemble brings the taps to strides 4, 8, 16, 32 (for patch 14: 3.5, 7, 14, 28); fusion blocks merge them from coarse
to fine; the head works at stride 2 and is then enlarged bilinearly, because convolutions at full resolution would cost
more than everything before them. All enlarging is bilinear without aligned corners, to explicit sizes, which every
runtime implements alike.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F


def enlarge(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of (B, C, h, w) to (B, C, *size)."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


class Reassemble(nn.Module):
    """One tap (B, D, h, w) to (B, C, h * factor, w * factor): project, resize, mix."""

    def __init__(self, width: int, channels: int, level: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(width, channels, kernel_size=1)
        self.resize = _resize(channels, level)
        self.mix = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.resize(self.project(features)))
        return mixed


def _resize(channels: int, level: int) -> nn.Module:
    """Level 0 is four times finer than the patch grid, 1 twice, 2 the same, 3 half as fine, and so on."""
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
        change: Tensor = self.conv2(F.relu(self.conv1(F.relu(features))))
        return features + change


class Fusion(nn.Module):
    """Adds a finer map to what comes from below, refines, projects, and enlarges to ``size``.

    The 1x1 projection comes before the enlarging. DPT has it after; the two commute, since bilinear weights sum to
    one, and here it touches a quarter of the pixels.
    """

    def __init__(self, channels: int, merges: bool) -> None:
        super().__init__()
        self.lateral = ResidualConvUnit(channels) if merges else None
        self.refine = ResidualConvUnit(channels)
        self.project = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, coarse: Tensor | None, lateral: Tensor, size: tuple[int, int]) -> Tensor:
        merged = lateral if coarse is None or self.lateral is None else coarse + self.lateral(lateral)
        return enlarge(self.project(self.refine(merged)), size)


class MetricActivation(nn.Module):
    """Depth in metres from raw outputs: ``exp(ln min + sigmoid(raw) * (ln max - ln min))``, so in [min, max].

    Logarithmic, since errors in depth matter in proportion; at ``raw = 0`` the depth is ``sqrt(min * max)``.
    """

    def __init__(self, min_depth_m: float, max_depth_m: float) -> None:
        super().__init__()
        self.min_depth_m, self.max_depth_m = min_depth_m, max_depth_m

    def forward(self, raw: Tensor) -> Tensor:
        low, span = math.log(self.min_depth_m), math.log(self.max_depth_m / self.min_depth_m)
        depth_m = (low + span * raw.float().sigmoid()).exp()
        return depth_m.clamp(self.min_depth_m, self.max_depth_m)  # exp(log(x)) may miss x by a rounding error


class RelativeActivation(nn.Module):
    """Relative depth, positive, from raw outputs: ``exp(raw)``; only ratios within an image carry meaning."""

    def forward(self, raw: Tensor) -> Tensor:
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
            nn.ReLU(inplace=True),  # its maps are the largest there are
            nn.Conv2d(hidden, 32, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, kernel_size=1),
        )

    def forward(self, features: tuple[Tensor, ...], resolution: tuple[int, int]) -> Tensor:
        """Raw depth (B, H, W) at ``resolution`` = (H, W)."""
        laterals = [block(tap) for block, tap in zip(self.reassemble, features, strict=True)]
        rows, columns = int(laterals[0].shape[2]), int(laterals[0].shape[3])
        sizes = [(2 * rows, 2 * columns), *((int(x.shape[2]), int(x.shape[3])) for x in laterals[:-1])]
        fused: Tensor | None = None
        for level in reversed(range(len(laterals))):
            fused = self.fusion[level](fused, laterals[level], sizes[level])
        raw: Tensor = enlarge(self.head(fused), resolution)
        return raw.squeeze(1)
