"""GLPN, a hierarchical transformer that gives metres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.contract import DepthKind, PreprocessRecord
from mvde.description import SizeRule, Sizing
from mvde.families.base import VGA, FamilyDefaults, FamilyOptions, KnownCheckpoint
from mvde.families.preprocessing import ProcessorDefaults, read_processor

if TYPE_CHECKING:
    from mvde.families.checkpoint import ModelFolder

_PROCESSOR = ProcessorDefaults(types=("GLPN",), size=None, resample=2, do_normalize=False)
_STATS_PATCH, _DEFAULT_DIVISOR = 16, 32


class Glpn(FamilyDefaults):
    """Frames keep their size, rounded down to multiples of 32; pixels are not normalised."""

    title = "GLPN"
    model_types = ("glpn",)
    note = "the frame's size, in multiples of 32"
    checkpoints = (
        KnownCheckpoint("vinvino02/glpn-nyu", DepthKind.METRIC, "apache-2.0", 10.0),
        KnownCheckpoint("vinvino02/glpn-kitti", DepthKind.METRIC, "apache-2.0", 80.0),
    )

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind from the table or the options."""
        return self.kind_from_table(folder, options)

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """0 to ``max_depth``, by which the sigmoid is multiplied."""
        return 0.0, float(folder.config.get("max_depth") or 10)

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing of the GLPN processor."""
        return read_processor(folder, _PROCESSOR).record

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The frame's size, rounded down."""
        divisor = int(folder.processor.get("size_divisor") or _DEFAULT_DIVISOR)
        height, width = (side // divisor * divisor for side in VGA)
        return Sizing(size=(height, width), multiple=divisor, rule=SizeRule.FRAME)

    def stats_patch(self, folder: ModelFolder) -> int:
        """16: the network has no patches."""
        return _STATS_PATCH
