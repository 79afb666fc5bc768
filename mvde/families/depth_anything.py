"""Depth Anything V1 and V2, relative and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvde.contract import DepthKind, PreprocessRecord
from mvde.description import SizeRule, Sizing, common_multiple
from mvde.families.base import (
    UNBOUNDED,
    VGA,
    FamilyDefaults,
    FamilyOptions,
    KnownCheckpoint,
    backbone_patch,
    stated_kind,
)
from mvde.families.preprocessing import ProcessorDefaults, read_processor

if TYPE_CHECKING:
    from mvde.families.checkpoint import ModelFolder

_PROCESSOR = ProcessorDefaults(types=("DPT",), size=(384, 384), resample=3)
_V2 = "depth-anything/Depth-Anything-V2"


class DepthAnything(FamilyDefaults):
    """Kind and largest depth from the configuration (``depth_estimation_type``, ``max_depth``)."""

    title = "Depth Anything V1, V2"
    model_types = ("depth_anything",)
    note = "518 on one side, the other by the frame's aspect"
    checkpoints = (
        KnownCheckpoint("LiheYoung/depth-anything-small-hf", DepthKind.INVERSE_RELATIVE, "apache-2.0"),
        KnownCheckpoint("LiheYoung/depth-anything-base-hf", DepthKind.INVERSE_RELATIVE, "apache-2.0"),
        KnownCheckpoint("LiheYoung/depth-anything-large-hf", DepthKind.INVERSE_RELATIVE, "apache-2.0"),
        KnownCheckpoint(f"{_V2}-Small-hf", DepthKind.INVERSE_RELATIVE, "apache-2.0"),
        KnownCheckpoint(f"{_V2}-Base-hf", DepthKind.INVERSE_RELATIVE, "cc-by-nc-4.0"),
        KnownCheckpoint(f"{_V2}-Large-hf", DepthKind.INVERSE_RELATIVE, "cc-by-nc-4.0"),
        KnownCheckpoint(f"{_V2}-Metric-Indoor-Small-hf", DepthKind.METRIC, "apache-2.0", 20.0),
        KnownCheckpoint(f"{_V2}-Metric-Indoor-Base-hf", DepthKind.METRIC, "cc-by-nc-4.0", 20.0),
        KnownCheckpoint(f"{_V2}-Metric-Indoor-Large-hf", DepthKind.METRIC, "cc-by-nc-4.0", 20.0),
        KnownCheckpoint(f"{_V2}-Metric-Outdoor-Small-hf", DepthKind.METRIC, "apache-2.0", 80.0),
        KnownCheckpoint(f"{_V2}-Metric-Outdoor-Base-hf", DepthKind.METRIC, "cc-by-nc-4.0", 80.0),
        KnownCheckpoint(f"{_V2}-Metric-Outdoor-Large-hf", DepthKind.METRIC, "cc-by-nc-4.0", 80.0),
    )

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind from ``depth_estimation_type``, by default relative."""
        stated = folder.config.get("depth_estimation_type", "relative")
        is_metric = stated == "metric"
        kind = DepthKind.METRIC if is_metric else DepthKind.INVERSE_RELATIVE
        return stated_kind(folder, kind, options, f"its configuration says depth_estimation_type {stated!r}")

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """0 to ``max_depth`` for a sigmoid in metres; unbounded for a ReLU."""
        return 0.0, float(folder.config.get("max_depth") or 1) if kind is DepthKind.METRIC else UNBOUNDED

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing of the DPT processor."""
        return read_processor(folder, _PROCESSOR).record

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The processor's size, rounded to patches."""
        return keep_aspect_sizing(folder, _PROCESSOR, backbone_patch(folder))

    def stats_patch(self, folder: ModelFolder) -> int:
        """The backbone's patch."""
        return backbone_patch(folder)

    def adjust_config(self, config: Any, kind: DepthKind) -> None:
        """Use the backbone's patch size: the head computes its output size from the outer one."""
        config.patch_size = config.backbone_config.patch_size


def keep_aspect_sizing(
    folder: ModelFolder, defaults: ProcessorDefaults, multiple: int, square_only: str = ""
) -> Sizing:
    """Sizes of a network whose processor resizes to ``size``, with or without the frame's aspect ratio."""
    processor = read_processor(folder, defaults)
    grid = common_multiple(multiple, processor.multiple)
    if processor.size is None:
        height, width = (-(-side // grid) * grid for side in VGA)
        return Sizing(size=(height, width), multiple=grid, rule=SizeRule.FRAME_PADDED)
    height, width = (max(round(side / grid), 1) * grid for side in processor.size)
    keeps = processor.keep_aspect and not square_only
    rule = SizeRule.KEEP_ASPECT if keeps else SizeRule.STRETCH
    return Sizing(size=(height, width), multiple=grid, rule=rule, square_only=square_only)
