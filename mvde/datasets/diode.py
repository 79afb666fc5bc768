"""DIODE (Vasiljevic et al., 2019): ``NAME.png``, ``NAME_depth.npy`` in metres and ``NAME_depth_mask.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import check_same_size, read_array, read_rgb, require_directory, require_file
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError

# From the official development kit.
INTRINSICS, SIZE = (886.81, 927.06, 512.0, 384.0), (768, 1024)
DEPTH_RANGE_M = (0.6, 350.0)
"""Range of the laser scanner, a FARO Focus S350, from its data sheet."""


class DiodeDataset:
    """DIODE split: ``[indoors|outdoor/]scene_XXXXX/scan_XXXXX/NAME.png``; masked-out pixels are 0."""

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path) -> None:
        require_directory(root, "DIODE's scene_XXXXX/scan_XXXXX folders")
        self._root = root
        self._depths = sorted(root.glob("**/*_depth.npy"))
        if not self._depths:
            raise DatasetError(f"{root} holds no scene_XXXXX/scan_XXXXX/*_depth.npy")

    def __len__(self) -> int:
        return len(self._depths)

    def __getitem__(self, index: int) -> DepthSample:
        path = self._depths[index]
        stem = path.name.removesuffix("_depth.npy")
        rgb_path = require_file(path.with_name(f"{stem}.png"), "the picture of a depth map")
        mask_path = require_file(path.with_name(f"{stem}_depth_mask.npy"), "the mask of a depth map")
        rgb, depth_m, mask = read_rgb(rgb_path), _plane(path), _plane(mask_path)
        check_same_size(rgb, depth_m, rgb_path, path)
        check_same_size(rgb, mask, rgb_path, mask_path)
        name = rgb_path.relative_to(self._root).as_posix()
        intrinsics = intrinsics_at(INTRINSICS, SIZE, depth_m.shape)
        return DepthSample(rgb, np.where(mask > 0, depth_m, np.float32(0)), intrinsics, name)

    def scene(self, index: int) -> str:
        """Return the folder of the frame's scene, which several scans are of."""
        return self._depths[index].parents[1].relative_to(self._root).as_posix()


def _plane(path: Path) -> NDArray[np.float32]:
    """Read an array (H, W) float32 from a file that holds (H, W) or (H, W, 1)."""
    array = read_array(path)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise DatasetError(f"{path} has shape {array.shape} and type {array.dtype}; expected numbers (H, W)")
    return array.astype(np.float32)
