"""Families of third-party depth models: what their numbers mean and how they are computed.

:data:`FAMILIES` is the table; :func:`load_family_model` loads a model by hub name or folder. Nothing heavy is imported
until a model is loaded.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mvde.contract import DepthKind
from mvde.errors import CheckpointError
from mvde.families.base import Family, FamilyOptions, ModelSetup, describe
from mvde.families.checkpoint import ModelFolder, open_model
from mvde.families.depth_anything import DepthAnything
from mvde.families.depth_pro import DepthPro
from mvde.families.dpt import Dpt
from mvde.families.glpn import Glpn
from mvde.families.other import OtherModel, check_task, refusal
from mvde.families.tipsv2 import TipsV2
from mvde.families.zoedepth import ZoeDepth

if TYPE_CHECKING:
    from mvde.families.network import TransformersDepthModel

FAMILIES: tuple[Family, ...] = (DepthAnything(), Dpt(), ZoeDepth(), DepthPro(), Glpn(), TipsV2())
"""Families of transformers, one entry each."""

__all__ = ["FAMILIES", "Family", "FamilyOptions", "family_of", "load_family_model"]


def family_of(folder: ModelFolder, options: FamilyOptions) -> Family:
    """Family of a model. Raises :class:`CheckpointError` for one that mvde cannot export."""
    if (why := refusal(folder)) is not None:
        raise CheckpointError(f"{folder.name!r}: {why}")
    check_task(folder)
    for family in FAMILIES:
        if folder.model_type in family.model_types:
            return family
    return OtherModel(folder, options, FAMILIES)


def load_family_model(
    name: str, *, kind: DepthKind | None = None, revision: str | None = None, domain: str | None = None
) -> TransformersDepthModel:
    """Load a depth model of transformers from a folder or by its hub name, in float32 and evaluation mode.

    ``kind`` says what the numbers mean where neither the model nor its family does, ``domain`` which head of a ZoeDepth
    model with several. Raises :class:`CheckpointError` if the model cannot be loaded, :class:`UsageError` for options
    that are missing or contradict it.
    """
    folder, options = open_model(name, revision), FamilyOptions(kind, domain)
    family = family_of(folder, options)
    description = describe(family, folder, options)
    origin = dataclasses.replace(description.origin, sha256=folder.sha256())

    from mvde.families.loading import load_network
    from mvde.families.network import TransformersDepthModel

    network = load_network(folder, family, description.depth_kind)
    setup = ModelSetup(folder, dataclasses.replace(description, origin=origin), options)
    family.adjust_network(network, setup)
    return TransformersDepthModel(network, family, setup).eval()
