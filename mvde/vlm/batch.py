"""The output of a :class:`DepthProcessor`: transformers' own, whose depth keeps its precision."""

from __future__ import annotations

from typing import Any

from transformers.feature_extraction_utils import BatchFeature

DEPTH_STATS = "depth_stats"
"""Name of the rows in a processor's output and in a model's arguments."""


class DepthBatch(BatchFeature):  # type: ignore[misc]
    """Output of a processor, with ``depth_stats``.

    ``batch.to(device, torch.bfloat16)`` casts pixels, as models need, but leaves ``depth_stats`` in float32: bfloat16
    has steps of 4 cm at 10 m, and the embedder computes in float32.
    """

    def to(self, *args: Any, **kwargs: Any) -> DepthBatch:
        """Move every tensor to a device, and cast those of floating-point numbers but for ``depth_stats``."""
        rows = self.data[DEPTH_STATS]
        super().to(*args, **kwargs)
        moved = self.data[DEPTH_STATS]
        if hasattr(moved, "device"):
            self.data[DEPTH_STATS] = rows.to(moved.device)
        return self
