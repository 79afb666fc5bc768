"""Cases of the comparisons with transformers: a tiny model, its options, and sizes of networks with their frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from mvde.assets import sample_photos
from mvde.contract import DepthKind

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A model of ``TINY`` with options of ``load_family_model``.

    Each of ``shapes`` is a size (H, W) of the network and a frame that the author's preprocessing brings to it; the
    first is the one that the graph is exported for where one is enough.
    """

    model: str
    shapes: tuple[tuple[Size, Size], ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> Size:
        """Size (H, W) of the network in the first shape."""
        return self.shapes[0][0]


_INVERSE, _METRIC = {"kind": DepthKind.INVERSE_RELATIVE}, {"kind": DepthKind.METRIC}
_KEEP_32 = (((64, 96), (120, 170)), ((64, 64), (120, 120)))
_ZOEDEPTH = (((80, 112), (90, 120)), ((80, 80), (90, 90)))

CASES: dict[str, Case] = {
    "depth anything": Case("depth-anything", (((56, 84), (123, 180)), ((56, 56), (120, 120)))),
    "depth anything, metric": Case("depth-anything-metric", (((84, 56), (180, 123)), ((56, 56), (120, 120)))),
    "dpt": Case("dpt", (((64, 64), (120, 160)),), _INVERSE),
    "dpt, hybrid": Case("dpt-hybrid", (((64, 64), (120, 160)),), _INVERSE),
    "dpt, beit": Case("dpt-beit", _KEEP_32, _INVERSE),
    "dpt, swin": Case("dpt-swin", _KEEP_32, _INVERSE),
    # The processor pads other frames, mvde stretches them (docs/models.md).
    "dpt, dinov2": Case("dpt-dinov2", (((56, 84), (56, 84)), ((56, 56), (56, 56))), _METRIC),
    "glpn": Case("glpn", (((64, 96), (75, 110)), ((64, 64), (75, 75))), _METRIC),
    "zoedepth": Case("zoedepth", _ZOEDEPTH, _METRIC),
    "zoedepth, kitti": Case("zoedepth-two", _ZOEDEPTH, {**_METRIC, "domain": "kitti"}),
    "depth pro": Case("depth-pro", (((256, 256), (300, 400)),)),
    "depth pro, metric": Case("depth-pro", (((256, 256), (300, 400)),), _METRIC),
    "tipsv2": Case("tipsv2", (((56, 56), (120, 160)), ((56, 84), (120, 180))), _METRIC),
}

ALL_SHAPES = [(name, shape) for name, case in CASES.items() for shape in range(len(case.shapes))]
"""Every case with the index of every shape."""


def photograph(size: Size) -> np.ndarray:
    """Photograph (H, W, 3), uint8, of ``size`` (H, W)."""
    with Image.open(sample_photos()[0]) as opened:
        return np.asarray(opened.convert("RGB").resize(size[::-1]))


def shape_name(name: str, shape: int) -> str:
    """Name of a case in one of its shapes, e.g. ``dpt, 64x64``."""
    height, width = CASES[name].shapes[shape][0]
    return f"{name}, {height}x{width}"
