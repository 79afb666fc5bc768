"""Textures in a file, so that a machine without scikit-image renders the same, and photographs as textures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvde.datasets.synth.textures import SIDE, TextureSet
from mvde.errors import DatasetError

LICENCE_FILE = "LICENSES.md"


def save_textures(textures: TextureSet, path: Path) -> None:
    """Write the layers and their groups to ``path`` (.npz, compressed)."""
    groups = np.frombuffer(json.dumps(textures.groups).encode(), np.uint8)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, layers=textures.layers, groups=groups)
    temporary.replace(path)


def load_textures(path: Path) -> TextureSet:
    """Read what :func:`save_textures` wrote. Raises :class:`DatasetError` for anything else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            layers, groups = stored["layers"], json.loads(stored["groups"].tobytes())
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{path} holds no textures ({error}); write them again with bin/nano_gpu_kit.py") from error
    if layers.dtype != np.uint8 or layers.ndim != 4 or layers.shape[1:] != (SIDE, SIDE, 3):
        raise DatasetError(f"{path} has layers of {layers.dtype} {layers.shape}, expected uint8 (L, {SIDE}, {SIDE}, 3)")
    return TextureSet(layers, {name: tuple(numbers) for name, numbers in groups.items()})


def with_photographs(textures: TextureSet, folder: Path) -> TextureSet:
    """Return the textures with every photograph of ``folder`` as a tileable layer of the groups photo and picture.

    The folder must hold a ``LICENSES.md`` that names each file: frames made of a photograph carry its licence. Raises
    :class:`DatasetError` without it, for a photograph that it does not name, and for a folder without photographs.
    """
    from mvde.image import is_image_path, read_image

    try:
        licences = (folder / LICENCE_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(
            f"{folder} has no readable {LICENCE_FILE}; write one that names each photograph with author and licence"
        ) from error
    paths = sorted(path for path in folder.iterdir() if is_image_path(path))
    unnamed = [path.name for path in paths if path.name not in licences]
    if unnamed or not paths:
        what = f"{', '.join(unnamed)}: not named in" if unnamed else "there is no photograph beside"
        raise DatasetError(f"{what} {folder / LICENCE_FILE}; textures need photographs whose licence is stated")
    first = len(textures.layers)
    layers = np.stack([_tile(read_image(path)) for path in paths])
    added = tuple(range(first, first + len(layers)))
    groups = {**textures.groups, **{name: textures.groups[name] + added for name in ("photo", "picture")}}
    return TextureSet(np.concatenate([textures.layers, layers]), groups)


def _tile(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Middle square of a photograph, mirrored to be tileable: (256, 256, 3), linear light."""
    from PIL import Image

    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side]).resize((SIDE // 2, SIDE // 2))
    quarter = (np.asarray(square, np.float64) / 255) ** 2.2
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    return np.asarray(np.concatenate([half, half[::-1]], axis=0) * 255 + 0.5).astype(np.uint8)
