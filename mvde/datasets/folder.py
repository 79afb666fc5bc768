"""Generic folder: ``rgb/NAME.png|jpg`` with ``depth/NAME.png|npy``, and an optional ``intrinsics.txt``."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import (
    IMAGE_SUFFIXES,
    check_same_size,
    read_depth,
    read_rgb,
    require_directory,
)
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError, UsageError

_FORM = "fx fy cx cy in pixels, or fx fy cx cy width height"
DEPTH_RANGE_M = (1e-3, 1000.0)
"""Wide, because the sensor is unknown; narrow it with ``--range``."""


class FolderDataset:
    """Samples of a generic folder, ordered by name.

    ``depth_scale`` is the stored value of one metre in every depth map; default: 1000 (millimetres) for a 16-bit PNG or
    an integer ``.npy``, and 1 for a floating-point ``.npy``. ``intrinsics.txt`` holds ``fx fy cx cy`` in pixels and, if
    picture sizes differ, the width and height they apply to; without these two, they apply to pictures of the first
    one's size.
    """

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path, depth_scale: float | None = None) -> None:
        require_directory(root / "rgb", "pictures")
        require_directory(root / "depth", "depth maps (16-bit .png, or .npy)")
        if depth_scale is not None and not 0 < depth_scale < math.inf:
            raise UsageError(f"the stored value of one metre must be a positive number, but got {depth_scale}")
        self._scale = depth_scale
        self._pairs = [
            (path, _depth_of(path, root / "depth"))
            for path in sorted((root / "rgb").iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not self._pairs:
            raise DatasetError(f"{root / 'rgb'} holds no picture ({', '.join(IMAGE_SUFFIXES)})")
        self._intrinsics_path = root / "intrinsics.txt"
        self._camera = _camera(self._intrinsics_path)
        self._own_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> DepthSample:
        rgb_path, depth_path = self._pairs[index]
        rgb = read_rgb(rgb_path)
        depth_m = read_depth(depth_path, self._scale)
        check_same_size(rgb, depth_m, rgb_path, depth_path)
        return DepthSample(rgb, depth_m, self._intrinsics_of(rgb_path, rgb.shape[:2]), rgb_path.name)

    def scene(self, index: int) -> str:
        """Return what precedes the number of the frame's file: the scene of ``kitchen-0003.png`` is ``kitchen``."""
        found = re.fullmatch(r"(.+)[-_]\d+", self._pairs[index][0].stem)
        return "" if found is None else found[1]

    def rgb_path(self, index: int) -> Path:
        """File of a frame's picture."""
        return self._pairs[index][0]

    def _intrinsics_of(self, path: Path, size: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Intrinsics of a picture of ``size``; ``None`` if unknown, or for a crop."""
        if self._camera is None:
            return None
        if len(self._camera) == 6:
            width, height = (round(value) for value in self._camera[4:])
            return intrinsics_at(self._camera[:4], (height, width), size)
        if self._own_size is None:
            height, width = size if path == self._pairs[0][0] else read_rgb(self._pairs[0][0]).shape[:2]
            self._own_size = height, width
        if size != self._own_size:
            raise DatasetError(
                f"{self._intrinsics_path} holds four numbers, which apply to pictures of {_text(self._own_size)} as "
                f"the first one, but {path} has {_text(size)}; use {_FORM}"
            )
        return np.array(self._camera, dtype=np.float32)


def _text(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]} pixels"


def _depth_of(rgb_path: Path, folder: Path) -> Path:
    for suffix in (".png", ".npy"):
        if (path := folder / f"{rgb_path.stem}{suffix}").is_file():
            return path
    raise DatasetError(f"{rgb_path} has no depth: expected {folder / rgb_path.stem}.png or .npy")


def _camera(path: Path) -> list[float] | None:
    """Parse the four or six numbers of ``intrinsics.txt``."""
    if not path.exists():
        return None
    try:
        values = np.array(path.read_text().split(), dtype=np.float32)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} must hold numbers, {_FORM}: {error}") from error
    if values.shape not in ((4,), (6,)):
        raise DatasetError(f"{path} holds {values.size} numbers; expected {_FORM}")
    if not np.isfinite(values).all() or min(values[:2]) <= 0 or (len(values) == 6 and min(values[4:]) < 1):
        raise DatasetError(f"{path}: focal lengths and sizes must be positive numbers of pixels, but got {values}")
    return [float(value) for value in values]
