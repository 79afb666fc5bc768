"""TIPSv2 with its DPT head, metres of indoor scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.contract import DepthKind, PreprocessRecord
from mvde.description import Sizing
from mvde.families.base import FamilyDefaults, FamilyOptions, KnownCheckpoint, backbone_patch
from mvde.families.depth_anything import keep_aspect_sizing
from mvde.families.preprocessing import ProcessorDefaults, read_processor

if TYPE_CHECKING:
    from mvde.families.checkpoint import ModelFolder

_PROCESSOR = ProcessorDefaults(types=("Tipsv2Dpt",), size=(448, 448), resample=2, do_normalize=False)


class TipsV2(FamilyDefaults):
    """Depth is a weighted mean of bins between ``min_depth`` and ``max_depth``; pixels are not normalised."""

    title = "TIPSv2-DPT"
    model_types = ("tipsv2_dpt",)
    note = "frames are stretched to 448x448"
    resize_mode = "bilinear"
    checkpoints = tuple(
        KnownCheckpoint(f"google/tipsv2-{size}-dpt", DepthKind.METRIC, None, 10.0)
        for size in ("b14", "l14", "so400m14", "g14")
    )

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind from the table or the options."""
        return self.kind_from_table(folder, options)

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """Range of the bins."""
        return float(folder.config.get("min_depth", 0.001)), float(folder.config.get("max_depth", 10.0))

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing of the TIPSv2 processor."""
        return read_processor(folder, _PROCESSOR).record

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The processor's size."""
        return keep_aspect_sizing(folder, _PROCESSOR, backbone_patch(folder))

    def stats_patch(self, folder: ModelFolder) -> int:
        """The backbone's patch."""
        return backbone_patch(folder)
