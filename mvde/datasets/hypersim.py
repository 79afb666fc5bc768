"""Hypersim (Roberts et al., 2021): tone-mapped pictures and HDF5 distances, converted to planar depth."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import check_same_size, open_hdf5, read_rgb, require_directory, require_file
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError

CAMERAS_FILE = "metadata_camera_parameters.csv"
_USUAL_HALF_ANGLE = math.radians(30)
"""Half of the horizontal field of view of most scenes, as published; some scenes have other cameras."""
_MAX_FILE_BYTES = 16 << 20

_LOG = logging.getLogger("mvde.datasets.hypersim")
DEPTH_RANGE_M = (1e-3, 80.0)
"""The renderer has no limit; anything farther is sky or a view through a window."""


class HypersimDataset:
    """Scenes ``ai_VVV_NNN/images/scene_cam_XX_{final_preview,geometry_hdf5}/frame.IIII.*``.

    Each scene has its own camera, listed in ``metadata_camera_parameters.csv`` of the data set's repository, which is
    searched for in the scene's folder, in ``root`` and in its parent. Without it the intrinsics are unknown, and
    distances are converted to depth with the camera of most scenes; a warning is logged once.
    """

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path) -> None:
        require_directory(root, "Hypersim's ai_VVV_NNN folders")
        self._root = root
        self._cameras: dict[Path, dict[str, NDArray[np.float64]]] = {}
        self._has_said_unknown = False
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
        scene = path.parents[2]
        camera = self._camera_of(scene)
        if camera is None:
            self._say_unknown(scene)
        depth_m = planar_depth(distance_m, _usual_camera(distance_m.shape) if camera is None else camera)
        intrinsics = None if camera is None else _pinhole(camera, distance_m.shape)
        return DepthSample(rgb, depth_m, intrinsics, rgb_path.relative_to(self._root).as_posix())

    def scene(self, index: int) -> str:
        """Return the name of the frame's scene, whose cameras film one room."""
        return self._depths[index].parents[2].name

    def _camera_of(self, scene: Path) -> NDArray[np.float64] | None:
        """``M_cam_from_uv`` of the scene (see :func:`planar_depth`), ``None`` if no file lists it."""
        for folder in (scene, scene.parent, self._root, self._root.absolute().parent):
            path = folder / CAMERAS_FILE
            if path not in self._cameras:
                self._cameras[path] = _read_cameras(path) if path.is_file() else {}
            if (camera := self._cameras[path].get(scene.absolute().name)) is not None:
                return camera
        return None

    def _say_unknown(self, scene: Path) -> None:
        if not self._has_said_unknown:
            self._has_said_unknown = True
            _LOG.warning(
                "%s: no %s with this scene's camera; its intrinsics are unknown, and distances are converted to depth "
                "with a 60 degree field of view; get the file from the data set's repository",
                scene,
                CAMERAS_FILE,
            )


def planar_depth(distance_m: NDArray[np.float32], camera: NDArray[np.float64]) -> NDArray[np.float32]:
    """Convert distances (H, W) to the camera centre into depth (H, W) float32 along the optical axis, in metres.

    ``camera`` (3, 3) maps (u, v, 1), with u and v from -1 to 1 to the right and up, to a ray in a camera that looks
    along -z: the data set's ``M_cam_from_uv``.
    """
    height, width = distance_m.shape
    u = (np.arange(width) + 0.5) * 2 / width - 1
    v = 1 - (np.arange(height) + 0.5) * 2 / height
    rays = camera @ np.stack([*np.broadcast_arrays(u[None, :], v[:, None], 1.0)]).reshape(3, -1)
    share = -rays[2] / np.linalg.norm(rays, axis=0)
    depth: NDArray[np.float32] = (distance_m * share.reshape(height, width)).astype(np.float32)
    return depth


def _usual_camera(size: tuple[int, ...]) -> NDArray[np.float64]:
    across = math.tan(_USUAL_HALF_ANGLE)
    return np.diag([across, across * size[0] / size[1], -1.0])


def _pinhole(camera: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Intrinsics (fx, fy, cx, cy) in pixels, or ``None`` for a tilted image plane, which is not a pinhole."""
    height, width = size
    (across, skew, right), (other_skew, up, above), (tilt, other_tilt, ahead) = camera / -camera[2, 2]
    if ahead >= 0 or max(abs(skew), abs(other_skew), abs(tilt), abs(other_tilt)) > 1e-6 or min(across, up) <= 0:
        return None
    cx, cy = width / 2 * (1 - right / across) - 0.5, height / 2 * (1 + above / up) - 0.5
    return np.array([width / 2 / across, height / 2 / up, cx, cy], dtype=np.float32)


def _read_cameras(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read ``M_cam_from_uv`` (3, 3) of each scene in the file."""
    columns = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise DatasetError(f"{path} is larger than {_MAX_FILE_BYTES} bytes; is it the data set's {CAMERAS_FILE}?")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        cameras = {row["scene_name"]: np.array([float(row[name]) for name in columns]).reshape(3, 3) for row in rows}
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise DatasetError(
            f"{path} does not have the columns scene_name and M_cam_from_uv_00 to _22 with numbers: {error!r}; use "
            "the file from the data set's repository"
        ) from error
    return {scene: camera for scene, camera in cameras.items() if np.isfinite(camera).all() and camera[2, 2] < 0}


def _distance(path: Path) -> NDArray[np.float32]:
    with open_hdf5(path) as file:
        if "dataset" not in file or file["dataset"].ndim != 2:
            raise DatasetError(f"{path} has no two-dimensional array 'dataset'")
        try:
            return np.asarray(file["dataset"], dtype=np.float32)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
