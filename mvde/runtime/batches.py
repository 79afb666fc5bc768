"""A batch of frames on its way through a runtime."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mvde.runtime.fitter import Fitted
from mvde.runtime.view import Anchor, View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.engines.base import Maps


class Taken(NamedTuple):
    """When a frame of a stream was taken, in seconds, if that is known, and by which camera, if there are several."""

    time_s: float | None = None
    source: Hashable = None


@dataclass(frozen=True)
class Prepared:
    """A preprocessed batch: the engine's input (padded to its batch), and placement and camera of each image.

    ``taken`` says when and by which camera each image was taken, where a stream knows it.
    """

    images: NDArray[np.uint8]
    fitted: list[Fitted]
    views: list[View]
    pre_ms: float
    anchors: Sequence[Anchor] | None
    taken: Sequence[Taken] = ()


@dataclass(frozen=True)
class Ran:
    """A batch after inference: outputs (H, W) of each image, and statistics (B, N, S) if the engine computed them.

    ``num_steady`` holds how many frames each image's depth goes back, where a stabiliser made it in ``steady_ms``.
    """

    prepared: Prepared
    maps: list[Maps]
    stats: NDArray[np.float32] | None
    infer_ms: float
    num_steady: Sequence[int] = ()
    steady_ms: float = 0.0

    @property
    def frames_back(self) -> Sequence[int | None]:
        """:attr:`num_steady`, or ``None`` for each image without a stabiliser."""
        return self.num_steady or [None] * len(self.maps)
