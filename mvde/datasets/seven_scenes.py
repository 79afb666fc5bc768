"""A sequence of 7-Scenes (Shotton et al., 2013) or 3DMatch: a Kinect's frames, with poses of KinectFusion.

A folder holds ``frame-000000.color.png`` (or ``.jpg``), ``.depth.png`` (16-bit, millimetres, 0 or 65535 where unknown)
and ``.pose.txt`` (4x4, world from camera in metres) of each frame, at 30 frames per second. ``camera-intrinsics.txt``
(3x3, in pixels of these pictures) is optional: without it, the data set's 585 pixels of 640x480 hold.

Picture and depth of 7-Scenes are of two cameras beside each other, not registered: at an edge, depth is off by several
pixels, and measures of accuracy include that.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import MILLIMETRES, check_same_size, read_depth_png, read_rgb, require_file
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.datasets.sequences import CLIP_FRAMES, SequenceClips
from mvde.errors import DatasetError

FPS = 30.0
INTRINSICS, SIZE = (585.0, 585.0, 320.0, 240.0), (480, 640)
"""Focal lengths and principal point of the data set's page, in pixels of pictures of 480x640 (height, width)."""
DEPTH_RANGE_M = (1e-3, 10.0)
"""Range of the Kinect, as for TUM RGB-D."""
_UNKNOWN_M = np.float32(65535) / np.float32(MILLIMETRES)
_LARGEST_SKEW = 0.01
"""Largest element of R^T R - 1: poses are written with a few digits."""


class SevenScenesDataset:
    """Frames of one sequence in the order of their numbers."""

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path) -> None:
        """Open ``root``. Raises DatasetError if it holds no frame, or intrinsics that are malformed."""
        found = [(re.fullmatch(r"frame-(\d+)\.color\.(?:png|jpe?g)", path.name), path) for path in root.glob("frame-*")]
        self._root = root
        self._pictures = sorted((int(name[1]), path) for name, path in found if name)
        if not self._pictures:
            raise DatasetError(f"{root} holds no frame-NNNNNN.color.png or .jpg; expected a sequence of 7-Scenes there")
        path = root / "camera-intrinsics.txt"
        self._own = _own_intrinsics(path) if path.exists() else None

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> DepthSample:
        rgb_path, depth_path = self._pictures[index][1], self._file(index, "depth.png")
        rgb, depth_m = read_rgb(rgb_path), read_depth_png(depth_path, MILLIMETRES)
        check_same_size(rgb, depth_m, rgb_path, depth_path)
        depth_m = np.where(depth_m < _UNKNOWN_M, depth_m, np.float32(0))
        intrinsics = intrinsics_at(INTRINSICS, SIZE, depth_m.shape) if self._own is None else self._own
        return DepthSample(rgb, depth_m, intrinsics, rgb_path.name)

    def scene(self, index: int) -> str:
        """Return the folder of the room, of which ``seq-01`` and so on are sequences."""
        folder = self._pictures[index][1].resolve().parent
        return folder.parent.name if re.fullmatch(r"seq-\d+", folder.name) else folder.name

    @property
    def times_s(self) -> NDArray[np.float64]:
        """When each picture was taken, (F,) in seconds, by its number."""
        return np.array([number for number, _ in self._pictures]) / FPS

    def pose(self, index: int) -> NDArray[np.float64]:
        """Return world from camera (3, 4) in metres, NaN where the tracking was lost.

        Raises DatasetError naming a file that is missing or malformed.
        """
        path = self._file(index, "pose.txt")
        pose = _matrix(path, (4, 4))
        if not np.isfinite(pose).all():
            return np.full((3, 4), np.nan)
        turn = pose[:3, :3]
        if not (np.abs(turn.T @ turn - np.eye(3)).max() < _LARGEST_SKEW and np.linalg.det(turn) > 0):
            raise DatasetError(f"{path}: expected a rotation in the upper left 3x3, but got {turn.tolist()}")
        return pose[:3]

    def _file(self, index: int, suffix: str) -> Path:
        name = self._pictures[index][1].name.split(".")[0]
        return require_file(self._root / f"{name}.{suffix}", "a file of the frame")


class SevenScenesClips(SequenceClips):
    """Clips of up to ``num_frames`` frames in a row of one sequence; height and pitch of a clip mean nothing here.

    Raises DatasetError where a file is missing or malformed, the camera of pictures of another aspect is not given, or
    nothing is left.
    """

    def __init__(self, root: Path, num_frames: int = CLIP_FRAMES) -> None:
        frames = SevenScenesDataset(root)
        if frames[0].intrinsics is None:
            raise DatasetError(f"{root}: pictures of another aspect than 480x640 need a camera-intrinsics.txt")
        poses = np.stack([frames.pose(index) for index in range(len(frames))])
        super().__init__(root.resolve().name, frames, frames.times_s, poses, num_frames)


def _own_intrinsics(path: Path) -> NDArray[np.float32]:
    matrix = _matrix(path, (3, 3))
    focal = matrix[[0, 1], [0, 1]]
    if not (np.isfinite(matrix).all() and (focal > 0).all()):
        raise DatasetError(f"{path}: focal lengths must be positive numbers of pixels, but got {focal.tolist()}")
    return np.array([*focal, matrix[0, 2], matrix[1, 2]], np.float32)


def _matrix(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        numbers = np.array(path.read_text(encoding="utf-8").split(), np.float64)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a matrix of numbers: {error}") from error
    if numbers.size != shape[0] * shape[1]:
        raise DatasetError(f"{path} holds {numbers.size} numbers; expected {shape[0]}x{shape[1]}")
    return numbers.reshape(shape)
