"""Images that decide and judge a typed graph, where the caller names none: crops of the photographs that ship."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.errors import ImageError, UsageError
from mvde.export.precision.options import HeldOut

if TYPE_CHECKING:
    ImageArray = NDArray[np.uint8]

CALIBRATION_LEVELS = (1, 2, 4, 8)
"""Crops of a whole, a half, a quarter, an eighth of a photograph's shorter side. Six photographs alone leave out near
walls: with them alone the decoder's largest activations came out at half of what rendered rooms reach, and int8 depth
was 7 % off there; with the smaller crops, which fill the image with one surface, at nine tenths, and 1 % off."""

HELD_OUT_LEVELS = (1, 2)


def default_images(resolution: tuple[int, int], limit: int) -> tuple[ImageArray, HeldOut]:
    """Calibration images (K, H, W, 3) and held-out ones, at most ``limit`` of each, from different photographs."""
    from mvde.assets import sample_photos

    paths = sample_photos()
    calibration = _crops(paths[::2], CALIBRATION_LEVELS, resolution, limit)
    held_out = _crops(paths[1::2], HELD_OUT_LEVELS, resolution, limit)
    return calibration, HeldOut(held_out, "photographs that calibration did not see")


def fingerprint(images: ImageArray) -> str:
    """SHA-256 of the pixels and their shape."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def check_images(images: ImageArray, resolution: tuple[int, int], what: str) -> None:
    """Nothing, if there are images and they have the graph's size. Raises :class:`UsageError` otherwise."""
    expected = (*resolution, 3)
    if images.ndim != 4 or len(images) == 0 or images.shape[1:] != expected or images.dtype != np.uint8:
        raise UsageError(
            f"{what} must be (K, {expected[0]}, {expected[1]}, 3) uint8 with K at least 1, but got {images.shape} "
            f"{images.dtype}"
        )


def _crops(paths: Sequence[Path], levels: Sequence[int], resolution: tuple[int, int], limit: int) -> ImageArray:
    """Square crops, spread evenly over each photograph: level by level, and at most ``limit``, evenly taken."""
    crops = []
    for level in levels:
        for path in paths:
            crops += _level(path, level, resolution)
    taken = np.linspace(0, len(crops) - 1, min(limit, len(crops))).astype(int)
    return np.stack([crops[index] for index in taken])


def _level(path: Path, level: int, resolution: tuple[int, int]) -> list[ImageArray]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            photo = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"cannot read the photograph {path}: {error}") from error
    side = min(photo.size) // level
    boxes = [
        (int(x), int(y), int(x) + side, int(y) + side)
        for y in np.linspace(0, photo.height - side, level)
        for x in np.linspace(0, photo.width - side, level)
    ]
    return [np.asarray(photo.resize(resolution[::-1], Image.Resampling.BILINEAR, box=box)) for box in boxes]
