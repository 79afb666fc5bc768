"""What several verbs share: the photographs that engines are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def read_photographs(folder: Path | None = None) -> list[NDArray[np.uint8]]:
    """RGB images (H, W, 3), uint8: the photographs of ``folder``, by default those that ship.

    Raises :class:`DatasetError` where the folder has no image, :class:`ImageError` for one that cannot be read.
    """
    from mvde.assets import sample_photos
    from mvde.errors import DatasetError
    from mvde.runtime.image import is_image_path, read_image

    paths = sample_photos() if folder is None else sorted(path for path in folder.rglob("*") if is_image_path(path))
    if not paths:
        raise DatasetError(f"{folder} holds no image (.jpg, .png, …); name a folder of photographs")
    return [read_image(path) for path in paths]


def fitted_photographs(resolution: tuple[int, int], folder: Path | None = None) -> NDArray[np.uint8]:
    """The same photographs cropped and resized to ``resolution``, (K, H, W, 3), uint8."""
    return fitted(read_photographs(folder), resolution)


def fitted(images: Sequence[NDArray[np.uint8]], resolution: tuple[int, int]) -> NDArray[np.uint8]:
    """Images (H, W, 3), uint8, cropped and resized to ``resolution``, (K, H, W, 3), uint8."""
    import numpy as np

    from mvde.runtime.image import fit_image, place

    return np.stack([fit_image(image, place((image.shape[0], image.shape[1]), resolution, "crop")) for image in images])
