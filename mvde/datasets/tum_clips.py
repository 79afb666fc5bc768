"""A TUM RGB-D sequence as clips: its pictures and depth with the poses of the motion capture, ``groundtruth.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import require_file
from mvde.datasets.sequences import CLIP_FRAMES, SequenceClips
from mvde.datasets.tum import LARGEST_GAP_S, TumDataset
from mvde.errors import DatasetError

_FORM = "time tx ty tz qx qy qz qw"


class TumClips(SequenceClips):
    """Clips of up to ``num_frames`` frames in a row of one sequence of TUM RGB-D (Sturm et al., 2012).

    A frame has the pose nearest in time, within 0.02 s. The camera is the one that the folder's name tells. Raises
    DatasetError where a file is missing or malformed, the camera is not known, or nothing is left.
    """

    def __init__(self, root: Path, num_frames: int = CLIP_FRAMES) -> None:
        frames = TumDataset(root)
        known_s, known = _read_poses(root / "groundtruth.txt")
        if frames[0].intrinsics is None:
            raise DatasetError(
                f"{root} does not tell its camera, which clips need: name the folder as the sequence, such as "
                "rgbd_dataset_freiburg1_desk"
            )
        times_s = np.array(frames.times_s)
        nearest = np.abs(known_s - times_s[:, None]).argmin(axis=1)
        poses = np.where((np.abs(known_s[nearest] - times_s) <= LARGEST_GAP_S)[:, None, None], known[nearest], np.nan)
        super().__init__(root.name, frames, times_s, poses, num_frames, f"a pose within {LARGEST_GAP_S} s")


def _read_poses(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (P,) in seconds, and poses (P, 3, 4), world from camera in metres."""
    rows = []
    for number, line in enumerate(require_file(path, f"poses, {_FORM}").read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            row = np.array(line.split(), np.float64)
        except ValueError:
            row = np.zeros(0)
        if row.shape != (8,) or not np.isfinite(row).all() or not 0.9 < np.linalg.norm(row[4:]) < 1.1:
            raise DatasetError(f"{path}, line {number}: expected {_FORM!r} with a unit quaternion, but got {line!r}")
        rows.append(row)
    if not rows:
        raise DatasetError(f"{path} holds no pose; expected lines of {_FORM!r}")
    table = np.stack(rows)
    return table[:, 0], np.concatenate([_rotations(table[:, 4:]), table[:, 1:4, None]], axis=2)


def _rotations(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices (P, 3, 3) of quaternions (P, 4), x y z w."""
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
