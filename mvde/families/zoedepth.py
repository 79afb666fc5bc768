"""ZoeDepth: metres, with the padding of its processor inside the network."""

from __future__ import annotations

import math
from types import MethodType
from typing import TYPE_CHECKING, Any

from mvde.contract import DepthKind, Interpolation, PreprocessRecord
from mvde.description import SizeRule, Sizing, keep_aspect_size
from mvde.errors import CheckpointError, UsageError
from mvde.families.base import VGA, FamilyDefaults, FamilyOptions, KnownCheckpoint, ModelSetup
from mvde.families.preprocessing import ProcessorDefaults, ProcessorFile, read_processor

if TYPE_CHECKING:
    from torch import Tensor

    from mvde.families.checkpoint import ModelFolder

_PROCESSOR = ProcessorDefaults(types=("ZoeDepth",), size=(384, 512), resample=2)
_STATS_PATCH = 16


class ZoeDepth(FamilyDefaults):
    """The engine takes frames as they are; reflection padding, resizing and their inverse are part of the graph.

    transformers pads a frame by ``3 sqrt(side / 2)``, resizes it with aligned corners, and undoes both on the map, so
    none of it can be done by a resizer that sees the frame only.
    """

    title = "ZoeDepth"
    model_types = ("zoedepth",)
    note = "its padding is in the graph, no flip; nyu-kitti needs --domain"
    checkpoints = (
        KnownCheckpoint("Intel/zoedepth-nyu", DepthKind.METRIC, "mit", 10.0),
        KnownCheckpoint("Intel/zoedepth-kitti", DepthKind.METRIC, "mit", 80.0),
        KnownCheckpoint("Intel/zoedepth-nyu-kitti", DepthKind.METRIC, "mit", 80.0),
    )

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind from the table or the options."""
        return self.kind_from_table(folder, options)

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """Range of the head's bins."""
        bins = _bins(folder, options)
        return float(bins.get("min_depth", 1e-3)), float(bins.get("max_depth", 10.0))

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Stretched to the engine's size; the processor's own resizing is inside the graph."""
        import dataclasses

        record = read_processor(folder, _PROCESSOR).record
        return dataclasses.replace(
            record, fit="stretch", multiple=1, interpolation=Interpolation.BILINEAR, bicubic_coefficient=None
        )

    def sizing(self, folder: ModelFolder) -> Sizing:
        """The frame's size, rounded to the patches of the statistics."""
        read_processor(folder, _PROCESSOR)
        return Sizing(size=VGA, multiple=_STATS_PATCH, rule=SizeRule.FRAME)

    def stats_patch(self, folder: ModelFolder) -> int:
        """16: the backbone's patches lie on the padded frame."""
        return _STATS_PATCH

    def adjust_network(self, network: Any, setup: ModelSetup) -> None:
        """Compute the chosen head only; the classifier that chooses one for each image cannot be exported."""
        if (domain := setup.options.domain) is not None:
            network.metric_head.domain = domain
            network.metric_head.forward = MethodType(_one_head, network.metric_head)

    def depth(self, network: Any, pixels: Tensor, setup: ModelSetup) -> Tensor:
        """Metres at the frame's size: pad, resize, estimate, resize back, cut off, as the processor does."""
        from torch.nn import functional as F

        processor = read_processor(setup.folder, _PROCESSOR)
        frame = int(pixels.shape[2]), int(pixels.shape[3])
        top, left = (_padding(side) if setup.folder.processor.get("do_pad", True) else 0 for side in frame)
        padded = F.pad(pixels, (left, left, top, top), mode="reflect")
        whole = int(padded.shape[2]), int(padded.shape[3])
        mode = processor.record.interpolation.value
        resized = F.interpolate(padded, _network_size(whole, processor), mode=mode, align_corners=True)
        depth = network(pixel_values=resized).predicted_depth
        depth = F.interpolate(depth[:, None], whole, mode="bicubic", align_corners=False)[:, 0]
        inner: Tensor = depth[:, top : top + frame[0], left : left + frame[1]]
        return inner


def _padding(side: int) -> int:
    return int(math.sqrt(side / 2) * 3)


def _network_size(padded: tuple[int, int], processor: ProcessorFile) -> tuple[int, int]:
    size = processor.size or padded
    if processor.keep_aspect:
        return keep_aspect_size(padded, size, processor.multiple)
    height, width = (max(round(side / processor.multiple), 1) * processor.multiple for side in size)
    return height, width


def _bins(folder: ModelFolder, options: FamilyOptions) -> dict[str, Any]:
    """Bins of the only head, or of the domain that was chosen."""
    configurations = folder.config.get("bin_configurations") or [{}]
    if len(configurations) == 1:
        if options.domain not in (None, configurations[0].get("name")):
            raise UsageError(f"{folder.name!r} has one head only; leave --domain {options.domain} out")
        return dict(configurations[0])
    names = [str(one.get("name")) for one in configurations]
    if options.domain is None:
        raise UsageError(
            f"{folder.name!r} has a head for each of {', '.join(names)} and chooses for each image, which a graph "
            f"cannot; give --domain {names[0]} or --domain {names[1]}"
        )
    if options.domain not in names:
        raise UsageError(f"{folder.name!r} has no domain {options.domain!r}; it has {', '.join(names)}")
    if not all("n_bins" in one for one in configurations):
        raise CheckpointError(f"bin_configurations of {folder.name!r} lack n_bins")
    return dict(configurations[names.index(options.domain)])


def _one_head(
    head: Any, outconv_activation: Tensor, bottleneck: Tensor, feature_blocks: Any, relative_depth: Tensor
) -> tuple[Tensor, None]:
    """Forward of ``ZoeDepthMultipleMetricDepthEstimationHeads`` for one domain."""
    from torch.nn import functional as F

    bins = next(one for one in head.bin_configurations if one["name"] == head.domain)
    hidden = head.conv2(bottleneck)
    _, previous = head.seed_bin_regressors[head.domain](hidden)
    if head.bin_centers_type in ("normed", "hybrid2"):
        previous = (previous - bins["min_depth"]) / (bins["max_depth"] - bins["min_depth"])
    previous_embedding = head.seed_projector(hidden)
    for projector, attractor, feature in zip(
        head.projectors, head.attractors[head.domain], feature_blocks, strict=False
    ):
        embedding = projector(feature)
        previous, centers = attractor(embedding, previous, previous_embedding, interpolate=True)
        previous_embedding = embedding
    size = outconv_activation.shape[-2:]
    centers = F.interpolate(centers, size, mode="bilinear", align_corners=True)
    embedding = F.interpolate(previous_embedding, size, mode="bilinear", align_corners=True)
    weights = head.conditional_log_binomial[head.domain](outconv_activation, embedding)
    return (weights * centers).sum(dim=1, keepdim=True), None
