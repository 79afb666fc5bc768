"""Recorded sequences as clips: frames in a row that have a pose, cut where one has none or time was lost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.clips import Clip
from mvde.datasets.sample import DepthDataset
from mvde.errors import DatasetError

CLIP_FRAMES = 60
LONGEST_GAP_S = 1.0


class SequenceClips:
    """Clips of up to ``num_frames`` of the ``frames`` of one camera, whose intrinsics are known.

    ``times_s`` (F,) are in seconds and increase; ``poses`` (F, 3, 4) are world from camera in metres, NaN where a frame
    has none. A frame without one, or after a gap of more than a second, ends the clip, and none is of one frame. The
    world is the recording's own, so that a clip's height and pitch hold only if its z is up from the floor. Raises
    DatasetError, which says that no ``pose_words`` are there, if nothing is left.
    """

    def __init__(
        self,
        name: str,
        frames: DepthDataset,
        times_s: NDArray[np.float64],
        poses: NDArray[np.float64],
        num_frames: int,
        pose_words: str = "a pose",
    ) -> None:
        self._name, self._frames, self._times, self._poses = name, frames, times_s, poses
        self._runs = self._split(num_frames)
        if not self._runs:
            raise DatasetError(f"{name}: no two pictures in a row have {pose_words}")

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
        has_pose = [bool(np.isfinite(pose).all()) for pose in self._poses]
        for index, gap_s in enumerate(np.diff(self._times, prepend=self._times[:1])):
            if runs[-1] and (not has_pose[index] or gap_s > LONGEST_GAP_S or len(runs[-1]) == num_frames):
                runs.append([])
            if has_pose[index]:
                runs[-1].append(index)
        return [run for run in runs if len(run) > 1]

    def _read(self, number: int, run: list[int]) -> Clip:
        samples = [self._frames[index] for index in run]
        depth = np.stack([np.nan_to_num(one.depth_m) for one in samples])
        intrinsics = np.stack([one.intrinsics for one in samples if one.intrinsics is not None])
        rgb, cuts = np.stack([one.rgb for one in samples]), np.zeros(len(run), np.bool_)
        return Clip(
            f"clip {number}", self._name, rgb, depth, intrinsics, self._poses[run], is_cut=cuts, time_s=self._times[run]
        )
