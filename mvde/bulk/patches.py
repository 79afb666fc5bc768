"""Which patches of a picture get a row: those of the engine's input, or those that another part of mvde finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.manifest import EngineManifest
    from mvde.runtime.depth import DepthRuntime


@dataclass(frozen=True)
class PatchLayout:
    """What is the same for all pictures of a run.

    ``grid`` are rows and columns, ``None`` where the number of patches depends on the picture; ``patch`` is a patch's
    side in pixels; ``processor`` identifies the image processor that the patches are those of.
    """

    grid: tuple[int, int] | None
    patch: int
    processor: str | None = None


@dataclass(frozen=True)
class PatchRows:
    """Statistics of a picture's patches: ``stats`` (N, S), float32, in the order of the tower.

    ``tiles`` is the number of maps that the tower sees of the picture, and ``grid`` the rows and columns of each,
    ``None`` if they differ. ``geometry`` identifies which pixels the patches are of, where that is not the engine's
    fit.
    """

    stats: NDArray[np.float32]
    grid: tuple[int, int] | None
    tiles: int = 1
    geometry: bytes | None = None


class Patches(Protocol):
    """Computes the rows of pictures; is sent to workers, so it can be pickled."""

    def layout(self, manifest: EngineManifest, columns: Sequence[str]) -> PatchLayout:
        """Layout of the rows. Raises :class:`UsageError` for a column that these patches cannot have."""
        ...

    def rows(
        self, runtime: DepthRuntime, image: NDArray[np.uint8], fit: str, columns: Sequence[str], camera: Camera | None
    ) -> PatchRows:
        """Rows of an RGB image (H, W, 3), uint8. Raises :class:`UsageError` for one that has no such patches."""
        ...


class EnginePatches:
    """The patches of the engine's own input, as many for every picture."""

    def layout(self, manifest: EngineManifest, columns: Sequence[str]) -> PatchLayout:
        """Grid of the engine."""
        return PatchLayout(manifest.grid, manifest.stats_patch)

    def rows(
        self, runtime: DepthRuntime, image: NDArray[np.uint8], fit: str, columns: Sequence[str], camera: Camera | None
    ) -> PatchRows:
        """Statistics of the runtime."""
        return PatchRows(runtime.patch_stats(image, fit, camera=camera), runtime.manifest.grid)
