"""Depth Pro: inverse depth for a canonical camera, or metres from the network's own field of view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvde.contract import DepthKind, FocalConvention, PreprocessRecord
from mvde.description import SizeRule, Sizing
from mvde.errors import CheckpointError, UsageError
from mvde.families.base import UNBOUNDED, FamilyDefaults, FamilyOptions, KnownCheckpoint, ModelSetup
from mvde.families.preprocessing import ProcessorDefaults, read_processor

if TYPE_CHECKING:
    from torch import Tensor

    from mvde.families.checkpoint import ModelFolder

_PROCESSOR = ProcessorDefaults(types=("DepthPro",), size=(1536, 1536), resample=2, antialias=False)
_INVERSE_RANGE = (1e-4, 1e4)  # the processor clamps inverse metres to it
_CANONICAL_FOCAL = 1.0  # metres = (fx / W) / map


class DepthPro(FamilyDefaults):
    """The map is 1/metres for a camera with fx = W; ``--kind metric`` adds the field-of-view tower."""

    title = "Depth Pro"
    model_types = ("depth_pro",)
    note = "1536x1536; --kind metric: metres from its own field of view"
    resize_mode = "bilinear"
    checkpoints = (KnownCheckpoint("apple/DepthPro-hf", DepthKind.INVERSE_CANONICAL, "apple-amlr"),)

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """``inverse_canonical``, or ``metric`` where asked for and the model has a field-of-view head."""
        match options.kind:
            case None | DepthKind.INVERSE_CANONICAL:
                return DepthKind.INVERSE_CANONICAL
            case DepthKind.METRIC if folder.config.get("use_fov_model"):
                return DepthKind.METRIC
            case DepthKind.METRIC:
                raise UsageError(
                    f"--kind metric needs the field-of-view head, which {folder.name!r} does not have (use_fov_model); "
                    "leave --kind out and give the camera when the engine runs"
                )
            case other:
                raise UsageError(f"--kind {other} contradicts Depth Pro: it gives inverse_canonical, or metric")

    def focal(self, kind: DepthKind) -> tuple[float | None, FocalConvention | None]:
        """The canonical camera has fx = W."""
        if kind is DepthKind.INVERSE_CANONICAL:
            return _CANONICAL_FOCAL, FocalConvention.HORIZONTAL
        return None, None

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """What the processor clamps metres to; the inverse map is unbounded."""
        return _INVERSE_RANGE if kind is DepthKind.METRIC else (0.0, UNBOUNDED)

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing of the Depth Pro processor: bilinear without antialiasing."""
        return read_processor(folder, _PROCESSOR).record

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The one size at which the smallest scale is one patch."""
        patch, ratio = int(folder.config.get("patch_size", 384)), min(folder.config.get("scaled_images_ratios", [0.25]))
        side = round(patch / ratio)
        if (size := read_processor(folder, _PROCESSOR).size) != (side, side):
            raise CheckpointError(
                f"{folder.name!r} contradicts itself: its configuration is for {side}x{side}, its preprocessor file "
                f"for {size}"
            )
        return Sizing(size=(side, side), multiple=self.stats_patch(folder), rule=SizeRule.FIXED)

    def stats_patch(self, folder: ModelFolder) -> int:
        """Patch of the patch encoder."""
        return int((folder.config.get("patch_model_config") or {}).get("patch_size", 14))

    def adjust_config(self, config: Any, kind: DepthKind) -> None:
        """Leave the field-of-view tower out where the camera is given."""
        config.use_fov_model = kind is DepthKind.METRIC

    def depth(self, network: Any, pixels: Tensor, setup: ModelSetup) -> Tensor:
        """Inverse map, or metres with the field of view (degrees) that the network estimates."""
        import torch
        from torch.nn import functional as F

        output = network(pixel_values=pixels)
        inverse: Tensor = output.predicted_depth
        if setup.description.depth_kind is DepthKind.INVERSE_CANONICAL:
            return inverse
        size = int(pixels.shape[2]), int(pixels.shape[3])
        if inverse.shape[1:] != pixels.shape[2:]:  # before the reciprocal, as transformers does
            inverse = F.interpolate(inverse[:, None], size=size, mode=self.resize_mode, align_corners=False)[:, 0]
        width_by_focal = 2 * torch.tan(0.5 * torch.deg2rad(output.field_of_view))
        low, high = _INVERSE_RANGE
        return 1 / (inverse * width_by_focal[:, None, None]).clamp(low, high)
