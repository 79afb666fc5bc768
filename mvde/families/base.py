"""The protocol of a family of third-party depth models, and what its members share. Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mvde.contract import DepthKind, FocalConvention, PreprocessRecord
from mvde.description import ModelDescription, Origin, Sizing
from mvde.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from mvde.families.checkpoint import ModelFolder

UNBOUNDED = 1e9
"""Upper end of ``valid_range`` of a map that has none (a ReLU): the largest value that a manifest can state."""


VGA = (480, 640)
"""Default frame (H, W) of networks that have no size of their own."""


@dataclass(frozen=True)
class KnownCheckpoint:
    """A published checkpoint: hub name, meaning of its map, licence, and largest depth in metres where it has one."""

    name: str
    kind: DepthKind
    licence: str | None
    max_depth_m: float | None = None


@dataclass(frozen=True)
class FamilyOptions:
    """Choices of the user: kind of depth, and the head of a model with several (``domain``)."""

    kind: DepthKind | None = None
    domain: str | None = None


@dataclass(frozen=True)
class ModelSetup:
    """Everything that a family's computation may depend on besides the weights."""

    folder: ModelFolder
    description: ModelDescription
    options: FamilyOptions


class Family(Protocol):
    """Adapter of one family: what its checkpoints mean and how they are computed."""

    @property
    def title(self) -> str:
        """Name of the family."""
        ...

    @property
    def model_types(self) -> tuple[str, ...]:
        """Values of ``model_type`` in ``config.json`` that belong to the family."""
        ...

    @property
    def checkpoints(self) -> tuple[KnownCheckpoint, ...]:
        """Published checkpoints."""
        ...

    @property
    def note(self) -> str:
        """A few words about size, padding or camera, for ``mvde models``."""
        ...

    @property
    def resize_mode(self) -> str:
        """How transformers resizes the network's map to the image: ``"bicubic"`` or ``"bilinear"``."""
        ...

    def kind(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind of depth. Raises :class:`UsageError` if it is unknown or contradicts the options."""
        ...

    def valid_range(self, folder: ModelFolder, kind: DepthKind, options: FamilyOptions) -> tuple[float, float]:
        """Smallest and largest value of the map, in its unit."""
        ...

    def focal(self, kind: DepthKind) -> tuple[float | None, FocalConvention | None]:
        """Focal length of the canonical camera and its convention, where the kind has one."""
        ...

    def preprocess(self, folder: ModelFolder) -> PreprocessRecord:
        """Preprocessing as the checkpoint's own files state it."""
        ...

    def sizing(self, folder: ModelFolder) -> Sizing:
        """Input sizes of the network."""
        ...

    def stats_patch(self, folder: ModelFolder) -> int:
        """Patch of the statistics in pixels: the backbone's, or 16 where it has none."""
        ...

    def adjust_config(self, config: Any, kind: DepthKind) -> None:
        """Correct transformers' configuration in place before the network is built."""
        ...

    def adjust_network(self, network: Any, setup: ModelSetup) -> None:
        """Prepare the loaded network in place, e.g. fix the choice of a head."""
        ...

    def depth(self, network: Any, pixels: Tensor, setup: ModelSetup) -> Tensor:
        """Map (B, H, W) of normalised pixels (B, 3, H, W); the network's own size is allowed."""
        ...


class FamilyDefaults:
    """Answers that most families share."""

    title: str
    model_types: tuple[str, ...] = ()
    checkpoints: tuple[KnownCheckpoint, ...] = ()
    note: str = ""
    resize_mode: str = "bicubic"

    def focal(self, kind: DepthKind) -> tuple[float | None, FocalConvention | None]:
        """No canonical camera."""
        return None, None

    def adjust_config(self, config: Any, kind: DepthKind) -> None:
        """Leave the configuration as it is."""

    def adjust_network(self, network: Any, setup: ModelSetup) -> None:
        """Leave the network as it is."""

    def depth(self, network: Any, pixels: Tensor, setup: ModelSetup) -> Tensor:
        """Return ``predicted_depth`` of the network."""
        depth: Tensor = network(pixel_values=pixels).predicted_depth
        return depth

    def known(self, folder: ModelFolder) -> KnownCheckpoint | None:
        """Entry of the table of checkpoints for this model, by the name it was given or was saved under."""
        names = {name.lower() for name in folder.names}
        return next((entry for entry in self.checkpoints if entry.name.lower() in names), None)

    def kind_from_table(self, folder: ModelFolder, options: FamilyOptions) -> DepthKind:
        """Kind from the table of checkpoints, else from the options; raises :class:`UsageError` as :meth:`kind`."""
        known = self.known(folder)
        if known is None:
            if options.kind is None:
                raise UsageError(
                    f"{folder.name!r} does not state what its numbers mean and is not in mvde's table of checkpoints; "
                    "give --kind, as the model's page says: metric (metres) or inverse_relative (larger is nearer, as "
                    "MiDaS and DPT)"
                )
            return options.kind
        return stated_kind(folder, known.kind, options, f"{known.name} gives {known.kind}")


def stated_kind(folder: ModelFolder, stated: DepthKind, options: FamilyOptions, why: str) -> DepthKind:
    """Return ``stated``; raises :class:`UsageError`, with ``why``, if the options say otherwise."""
    if options.kind not in (None, stated):
        raise UsageError(f"--kind {options.kind} contradicts the model {folder.name!r}: {why}; leave --kind out")
    return stated


def backbone_patch(folder: ModelFolder) -> int:
    """Patch size of the backbone's configuration, else of the model's own; an outer one is ignored.

    DPT writes ``patch_size: 16`` whatever its backbone is.
    """
    config = folder.config
    backbone = config.get("backbone_config")
    inner = backbone.get("patch_size") if isinstance(backbone, Mapping) else None
    if isinstance(backbone, Mapping) and inner is None:
        inner = _DEFAULT_PATCHES.get(str(backbone.get("model_type")))
    size = inner if isinstance(backbone, Mapping) else config.get("patch_size")
    sizes = size if isinstance(size, list) else [size, size]
    if len(sizes) != 2 or sizes[0] != sizes[1] or not isinstance(sizes[0], int) or sizes[0] < 1:
        raise CheckpointError(f"{folder.path / 'config.json'} states no square patch size of the backbone (got {size})")
    return int(sizes[0])


_DEFAULT_PATCHES = {"dinov2": 14, "dinov2_with_registers": 14, "beit": 16, "vit": 16, "tipsv2_vision_model": 14}
"""Patch sizes that transformers leaves out of ``config.json`` because they are its defaults."""


def describe(family: Family, folder: ModelFolder, options: FamilyOptions) -> ModelDescription:
    """Description of a model of the family; raises :class:`UsageError` or :class:`CheckpointError`."""
    kind = family.kind(folder, options)
    focal, convention = family.focal(kind)
    return ModelDescription(
        name=folder.graph_name,
        depth_kind=kind,
        valid_range=family.valid_range(folder, kind, options),
        preprocess=family.preprocess(folder),
        stats_patch=family.stats_patch(folder),
        sizing=family.sizing(folder),
        origin=Origin(
            kind="transformers",
            name=folder.name,
            config=dict(folder.config),
            revision=folder.revision,
            licence=folder.licence or _known_licence(family, folder),
        ),
        canonical_focal=focal,
        focal_convention=convention,
    )


def _known_licence(family: Family, folder: ModelFolder) -> str | None:
    names = {name.lower() for name in folder.names}
    return next((entry.licence for entry in family.checkpoints if entry.name.lower() in names), None)
