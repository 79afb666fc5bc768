"""A generic folder: ``rgb/NAME.png|jpg`` beside ``depth/NAME.png|npy``, and one optional ``intrinsics.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import (
    IMAGE_SUFFIXES,
    check_same_size,
    read_array,
    read_depth_png,
    read_rgb,
    require_directory,
)
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError


class FolderDataset:
    """Samples of a generic folder, in the order of their names.

    A 16-bit PNG holds depth times ``depth_scale`` (1000: millimetres), and so does an integer ``.npy``; a floating
    ``.npy`` holds metres. ``intrinsics.txt`` holds ``fx fy cx cy`` in pixels for all pictures.
    """

    def __init__(self, root: Path, depth_scale: float = 1000.0) -> None:
        require_directory(root / "rgb", "pictures")
        require_directory(root / "depth", "depth maps (16-bit .png, or .npy)")
        self._scale = depth_scale
        self._pairs = [
            (path, _depth_of(path, root / "depth"))
            for path in sorted((root / "rgb").iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not self._pairs:
            raise DatasetError(f"{root / 'rgb'} holds no picture ({', '.join(IMAGE_SUFFIXES)})")
        self._intrinsics = _intrinsics(root / "intrinsics.txt")

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> DepthSample:
        rgb_path, depth_path = self._pairs[index]
        rgb = read_rgb(rgb_path)
        depth = _array_depth(depth_path, self._scale) if depth_path.suffix == ".npy" else None
        depth_m = depth if depth is not None else read_depth_png(depth_path, self._scale)
        check_same_size(rgb, depth_m, rgb_path, depth_path)
        return DepthSample(rgb, depth_m, self._intrinsics, rgb_path.name)


def _depth_of(rgb_path: Path, folder: Path) -> Path:
    for suffix in (".png", ".npy"):
        if (path := folder / f"{rgb_path.stem}{suffix}").is_file():
            return path
    raise DatasetError(f"{rgb_path} has no depth: expected {folder / rgb_path.stem}.png or .npy")


def _array_depth(path: Path, scale: float) -> NDArray[np.float32]:
    array = read_array(path)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DatasetError(f"{path} has shape {array.shape} and type {array.dtype}; expected numbers (H, W)")
    return array.astype(np.float32) / np.float32(1.0 if array.dtype.kind == "f" else scale)


def _intrinsics(path: Path) -> NDArray[np.float32] | None:
    if not path.exists():
        return None
    try:
        values = np.array(path.read_text().split(), dtype=np.float32)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} must hold four numbers, fx fy cx cy in pixels: {error}") from error
    if values.shape != (4,):
        raise DatasetError(f"{path} holds {values.size} numbers; expected four, fx fy cx cy in pixels")
    return values
