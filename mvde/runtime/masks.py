"""What a network's sky, mask and confidence outputs do to the depth and the statistics of one frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.contract import OutputRole
from mvde.errors import UsageError
from mvde.postprocess import Mask
from mvde.stats import CONFIDENCE, masked_depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.engines.base import Maps
    from mvde.manifest import Manifest


def needs_maps(manifest: Manifest, stats: Sequence[str]) -> bool:
    """Whether depth or these columns of statistics need more outputs than depth."""
    return CONFIDENCE in stats or any(role.has_threshold for role in manifest.output_names)


def masked_map(maps: Maps, manifest: Manifest) -> NDArray[np.float32]:
    """Map of the network, each (H, W), NaN where a mask beside a sky says that it is not valid.

    The kernel takes one mask; sky wins where both say something.
    """
    raw = maps[OutputRole.DEPTH]
    mask = _mask(maps, manifest, OutputRole.MASK)
    return masked_depth(raw, *mask) if mask is not None and OutputRole.SKY in maps else raw


def kernel_options(maps: Maps, manifest: Manifest, stats: Sequence[str]) -> dict[str, Any]:
    """Mask and confidence for :func:`mvde.postprocess.postprocess`, from the outputs (H, W) of the network."""
    sky, mask = (_mask(maps, manifest, role) for role in (OutputRole.SKY, OutputRole.MASK))
    confidence = maps[OutputRole.CONFIDENCE] if CONFIDENCE in stats else None
    return {"mask": sky or mask, "confidence": confidence}


def mark_invalid(depth: NDArray[np.float32], maps: Maps, manifest: Manifest) -> None:
    """Set depth (H, W) to NaN where a mask says that it is not valid and there is no sky: in inverse maps 0 is far."""
    mask, sky = (_mask(maps, manifest, role) for role in (OutputRole.MASK, OutputRole.SKY))
    if mask is not None:
        is_sky = sky is not None and (sky.values >= np.float32(sky.threshold))
        depth[~(mask.values >= np.float32(mask.threshold)) & ~np.asarray(is_sky)] = math.nan


def _mask(maps: Maps, manifest: Manifest, role: OutputRole) -> Mask | None:
    threshold = next((output.threshold for output in manifest.outputs if output.role is role), None)
    return None if threshold is None else Mask(maps[role], role.value, threshold)


def value_of_invalid(name: str) -> float:
    """What depth holds where the network saw nothing, ``name``; raises :class:`UsageError` for an unknown one."""
    if name not in ("nan", "zero"):
        raise UsageError(f"invalid is {name!r}: expected 'nan', or 'zero' for programs that cannot read NaN")
    return math.nan if name == "nan" else 0.0
