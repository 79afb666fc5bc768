"""A TUM RGB-D sequence as clips: its pictures and depth with the poses of the motion capture, ``groundtruth.txt``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.clips import Clip
from mvde.datasets.decode import require_file
from mvde.datasets.tum import LARGEST_GAP_S, TumDataset
from mvde.errors import DatasetError

CLIP_FRAMES = 60
_LONGEST_GAP_S = 1.0
_FORM = "time tx ty tz qx qy qz qw"


class TumClips:
    """Clips of up to ``num_frames`` frames in a row of one sequence of TUM RGB-D (Sturm et al., 2012).

    A frame has the pose nearest in time, within 0.02 s, and one without a pose or after a gap of more than a second
    ends the clip. The camera is the one that the folder's name tells. Raises DatasetError where a file is missing or
    malformed, the camera is not known, or nothing is left.
    """

    def __init__(self, root: Path, num_frames: int = CLIP_FRAMES) -> None:
        self._root, self._frames = root, TumDataset(root)
        self._times, self._poses = _read_poses(root / "groundtruth.txt")
        if self._frames[0].intrinsics is None:
            raise DatasetError(
                f"{root} does not tell its camera, which clips need: name the folder as the sequence, such as "
                "rgbd_dataset_freiburg1_desk"
            )
        self._runs = self._split(num_frames)
        if not self._runs:
            raise DatasetError(f"{root}: no two pictures in a row have a pose within {LARGEST_GAP_S} s")

    @property
    def num_clips(self) -> int:
        """Number of clips."""
        return len(self._runs)

    def clips(self) -> Iterator[Clip]:
        """Read the clips one after the other."""
        return (self._read(number, run) for number, run in enumerate(self._runs))

    def _split(self, num_frames: int) -> list[list[int]]:
        """Numbers of the frames of each clip."""
        runs: list[list[int]] = [[]]
        last_s = 0.0
        for index, time_s in enumerate(self._frames.times_s):
            has_pose = np.abs(self._times - time_s).min() <= LARGEST_GAP_S
            if runs[-1] and (not has_pose or time_s - last_s > _LONGEST_GAP_S or len(runs[-1]) == num_frames):
                runs.append([])
            if has_pose:
                runs[-1].append(index)
            last_s = time_s
        return [run for run in runs if len(run) > 1]

    def _read(self, number: int, run: list[int]) -> Clip:
        samples = [self._frames[index] for index in run]
        times = np.array([self._frames.times_s[index] for index in run])
        nearest = [int(np.abs(self._times - time_s).argmin()) for time_s in times]
        depth = np.stack([np.nan_to_num(one.depth_m) for one in samples])
        intrinsics = np.stack([one.intrinsics for one in samples if one.intrinsics is not None])
        rgb = np.stack([one.rgb for one in samples])
        cuts = np.zeros(len(run), np.bool_)
        return Clip(f"clip {number}", self._root.name, rgb, depth, intrinsics, self._poses[nearest], cuts, times)


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
