"""What an exporter needs to know of a depth model: meaning of its numbers, pixels, sizes and origin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mvde.contract import DepthKind, FocalConvention, PreprocessRecord
from mvde.errors import ResolutionError
from mvde.resolution import check_resolution


class SizeRule(str, Enum):
    """How the author's preprocessing chooses the network's size for a frame."""

    FIXED = "fixed"
    """One size; the network takes no other."""
    STRETCH = "stretch"
    """One size for every frame; the network takes others."""
    KEEP_ASPECT = "keep_aspect"
    """The side that changes least is scaled to the size, the other side follows the frame's aspect ratio."""
    FRAME = "frame"
    """The frame's own size, rounded down."""
    FRAME_PADDED = "frame_padded"
    """The frame's own size, rounded up."""

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """Input sizes of a network: ``size`` is its author's (H, W) in pixels, ``multiple`` what sides are multiples of.

    ``square_only`` is the reason, as a sentence, why a network takes square input only; empty otherwise.
    """

    size: tuple[int, int]
    multiple: int
    rule: SizeRule
    square_only: str = ""

    def for_frame(self, frame: tuple[int, int]) -> tuple[int, int]:
        """Network size (H, W) that the author's preprocessing gives for a frame (H, W)."""
        match self.rule:
            case SizeRule.FIXED | SizeRule.STRETCH:
                return self.size
            case SizeRule.FRAME:
                height, width = (max(side // self.multiple, 1) * self.multiple for side in frame)
                return height, width
            case SizeRule.FRAME_PADDED:
                height, width = (-(-side // self.multiple) * self.multiple for side in frame)
                return height, width
            case SizeRule.KEEP_ASPECT:
                return keep_aspect_size(frame, self.size, self.multiple)

    def is_authors(self, resolution: tuple[int, int]) -> bool:
        """Whether the author's preprocessing gives this size for some frame."""
        return self.for_frame(resolution) == resolution

    def check(self, resolution: tuple[int, int]) -> None:
        """Raise :class:`ResolutionError` for a size that the network cannot have."""
        if self.rule is SizeRule.FIXED and resolution != self.size:
            raise ResolutionError(
                f"the network runs at {self.size[0]}x{self.size[1]} only, but got {resolution[0]}x{resolution[1]}; "
                "leave --res out: frames of any size are resized to it"
            )
        check_resolution(resolution, self.multiple)
        if self.square_only and resolution[0] != resolution[1]:
            raise ResolutionError(
                f"{self.square_only}, but got {resolution[0]}x{resolution[1]}; use {resolution[0]}x{resolution[0]} or "
                f"{resolution[1]}x{resolution[1]}"
            )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model came from, for the manifest's ``source``; ``sha256`` is ``None`` for weights without a file."""

    kind: str
    name: str
    config: dict[str, Any]
    sha256: str | None = None
    revision: str | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Facts of a depth model that its manifest states; see :class:`mvde.manifest.Manifest` for the fields.

    ``name`` is the default name of its graphs.
    """

    name: str
    depth_kind: DepthKind
    valid_range: tuple[float, float]
    preprocess: PreprocessRecord
    stats_patch: int
    sizing: Sizing
    origin: Origin
    canonical_focal: float | None = None
    focal_convention: FocalConvention | None = None

    def check(self, resolution: tuple[int, int]) -> None:
        """Raise :class:`ResolutionError` for a size that the network or its statistics cannot have."""
        self.sizing.check(resolution)
        check_resolution(resolution, self.stats_patch)

    def grid(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the patches of the statistics."""
        return resolution[0] // self.stats_patch, resolution[1] // self.stats_patch


def keep_aspect_size(frame: tuple[int, int], size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Size (H, W) of ``frame`` scaled as little as possible to one side of ``size``, rounded to ``multiple``.

    The rule of MiDaS, DPT, Depth Anything and ZoeDepth: of the two scales that make a side fit, the nearer to 1.
    """
    scales = [target / side for target, side in zip(size, frame, strict=True)]
    scale = scales[1] if abs(1 - scales[1]) < abs(1 - scales[0]) else scales[0]
    height, width = (max(round(scale * side / multiple), 1) * multiple for side in frame)
    return height, width


def common_multiple(*sides: int) -> int:
    """Least common multiple of positive whole numbers."""
    return math.lcm(*sides)
