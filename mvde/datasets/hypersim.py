"""Hypersim (Roberts et al., 2021): tone-mapped pictures and HDF5 distances, turned into planar depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import check_same_size, open_hdf5, read_rgb, require_directory, require_file
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError

# Of the 768 x 1024 pictures: a horizontal field of view of 60 degrees, as its authors give it.
WIDTH, FOCAL_LENGTH = 1024, 886.81


class HypersimDataset:
    """Samples of scenes ``ai_VVV_NNN/images/scene_cam_XX_{final_preview,geometry_hdf5}/frame.IIII.*``."""

    def __init__(self, root: Path) -> None:
        require_directory(root, "Hypersim's ai_VVV_NNN folders")
        self._root = root
        self._depths = sorted(root.glob("**/images/scene_cam_*_geometry_hdf5/frame.*.depth_meters.hdf5"))
        if not self._depths:
            raise DatasetError(f"{root} holds no images/scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5")

    def __len__(self) -> int:
        return len(self._depths)

    def __getitem__(self, index: int) -> DepthSample:
        path = self._depths[index]
        folder = path.parent.with_name(path.parent.name.replace("_geometry_hdf5", "_final_preview"))
        rgb_path = folder / path.name.replace("depth_meters.hdf5", "tonemap.jpg")
        rgb = read_rgb(require_file(rgb_path, "the tone-mapped picture"))
        distance_m = _distance(path)
        check_same_size(rgb, distance_m, rgb_path, path)
        focal = FOCAL_LENGTH * distance_m.shape[1] / WIDTH
        height, width = distance_m.shape
        intrinsics = np.array([focal, focal, width / 2, height / 2], dtype=np.float32)
        name = rgb_path.relative_to(self._root).as_posix()
        return DepthSample(rgb, planar_depth(distance_m, focal), intrinsics, name)


def planar_depth(distance_m: NDArray[np.float32], focal: float) -> NDArray[np.float32]:
    """Depth (H, W) float32 along the optical axis in metres, from distances (H, W) to the camera's centre.

    ``focal`` is in pixels; the principal point is the middle of the picture, pixel centres are at half-integers.
    """
    height, width = distance_m.shape
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    depth: NDArray[np.float32] = (distance_m / np.sqrt(x[None, :] ** 2 + y[:, None] ** 2 + 1)).astype(np.float32)
    return depth


def _distance(path: Path) -> NDArray[np.float32]:
    with open_hdf5(path) as file:
        if "dataset" not in file or file["dataset"].ndim != 2:
            raise DatasetError(f"{path} has no two-dimensional array 'dataset'")
        try:
            return np.asarray(file["dataset"], dtype=np.float32)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
