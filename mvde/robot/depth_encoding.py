"""How depth is stored in a log."""

from __future__ import annotations

from enum import Enum


class DepthEncoding(str, Enum):
    """How depth is stored."""

    FLOAT = "32FC1"
    """Metres, NaN where there is none."""
    MILLIMETRES = "16UC1"
    """Millimetres up to 65.535 m, 0 where there is none."""
    COMPRESSED = "compressedDepth"
    """Those millimetres as PNG, the format of compressed_depth_image_transport."""

    def __str__(self) -> str:
        return self.value
