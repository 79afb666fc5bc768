"""DPT (MiDaS) with its own ViT, hybrid, or a BEiT, Swin or DINOv2 backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvde.contract import DepthKind, PreprocessRecord
from mvde.description import SizeRule, Sizing
from mvde.errors import CheckpointError
from mvde.families.base import UNBOUNDED, FamilyDefaults, FamilyOptions, KnownCheckpoint, backbone_patch
from mvde.families.depth_anything import keep_aspect_sizing
from mvde.families.preprocessing import ProcessorDefaults, read_processor

if TYPE_CHECKING:
    from mvde.families.checkpoint import ModelFolder

_PROCESSOR = ProcessorDefaults(types=("DPT",), size=(384, 384), resample=3)
_SQUARE = "DPT with its own ViT takes square images only in transformers"
_SWIN_MULTIPLE, _FREE_PATCH = 32, 16

_MIDAS = {
    "Intel/dpt-large": "apache-2.0",
    "Intel/dpt-hybrid-midas": "apache-2.0",
    "Intel/dpt-beit-base-384": "mit",
    "Intel/dpt-beit-large-384": "mit",
    "Intel/dpt-beit-large-512": "mit",
    "Intel/dpt-swinv2-tiny-256": "mit",
    "Intel/dpt-swinv2-base-384": "mit",
    "Intel/dpt-swinv2-large-384": "mit",
}
_DINOV2_SIZES, _DINOV2_DATA = ("small", "base", "large", "giant"), {"nyu": 10.0, "kitti": 80.0}


class Dpt(FamilyDefaults):
    """Kind from the table of checkpoints: the configuration does not state it."""

    title = "DPT, MiDaS 3"
    model_types = ("dpt",)
    note = "own ViT: square; hybrid: one size"
    checkpoints = tuple(
        KnownCheckpoint(name, DepthKind.INVERSE_RELATIVE, licence) for name, licence in _MIDAS.items()
    ) + tuple(
        KnownCheckpoint(f"facebook/dpt-dinov2-{size}-{data}", DepthKind.METRIC, "apache-2.0", max_depth_m)
        for size in _DINOV2_SIZES
        for data, max_depth_m in _DINOV2_DATA.items()
    )

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind from the table or the options."""
        return self.kind_from_table(folder, options)

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """0 to the data set's range of a known metric checkpoint; unbounded otherwise, as the ReLU is."""
        known = self.known(folder)
        return 0.0, UNBOUNDED if known is None or known.max_depth_m is None else known.max_depth_m

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing of the DPT processor."""
        return read_processor(folder, _PROCESSOR).record

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The processor's size; hybrid models have the one of their configuration."""
        if folder.config.get("is_hybrid"):
            side = folder.config.get("image_size", 384)
            height, width = side if isinstance(side, list) else (side, side)
            return Sizing(size=(height, width), multiple=backbone_patch(_own(folder)), rule=SizeRule.FIXED)
        if _is_hierarchical(folder):
            return keep_aspect_sizing(folder, _PROCESSOR, _SWIN_MULTIPLE)
        is_own = not folder.config.get("backbone_config")
        return keep_aspect_sizing(folder, _PROCESSOR, backbone_patch(folder), _SQUARE if is_own else "")

    def stats_patch(self, folder: ModelFolder) -> int:
        """The backbone's patch; 16 for Swin, which has none."""
        if _is_hierarchical(folder):
            return _FREE_PATCH
        return backbone_patch(_own(folder) if folder.config.get("is_hybrid") else folder)


def _is_hierarchical(folder: ModelFolder) -> bool:
    backbone = folder.config.get("backbone_config") or {}
    if folder.config.get("is_hybrid") or not backbone:
        return False
    kind = str(backbone.get("model_type"))
    if kind not in ("swin", "swinv2", "beit", "dinov2", "dinov2_with_registers", "vit"):
        raise CheckpointError(f"{folder.name!r} is a DPT with a {kind!r} backbone, which mvde does not know")
    return kind in ("swin", "swinv2")


def _own(folder: ModelFolder) -> ModelFolder:
    """The model without its convolutional stem, whose configuration has no patch."""
    import dataclasses

    config = {key: value for key, value in folder.config.items() if key != "backbone_config"}
    return dataclasses.replace(folder, config={"patch_size": 16, **config})
