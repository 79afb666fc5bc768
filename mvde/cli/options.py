"""Options that several verbs share, and the photographs that engines are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EngineDir = Annotated[Path, typer.Option("--engine-dir", help="Folder that holds engines.", file_okay=False)]
ModelName = Annotated[str | None, typer.Option("--name", help="Model name, where several were exported or built.")]


def sample_images(resolution: tuple[int, int], folder: Path | None = None) -> NDArray[np.uint8]:
    """RGB images (K, H, W, 3), uint8, at ``resolution``: the photographs of ``folder``, by default those that ship.

    Raises :class:`DatasetError` where the folder has no image, :class:`ImageError` for one that cannot be read.
    """
    import numpy as np

    from mvde.assets import sample_photos
    from mvde.errors import DatasetError
    from mvde.runtime.image import fit_image, is_image_path, place, read_image

    paths = sample_photos() if folder is None else sorted(path for path in folder.rglob("*") if is_image_path(path))
    if not paths:
        raise DatasetError(f"{folder} holds no image (.jpg, .png, …); name a folder of photographs")
    images = [read_image(path) for path in paths]
    return np.stack([fit_image(image, place(image.shape[:2], resolution, "crop")) for image in images])
