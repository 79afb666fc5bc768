"""NYU Depth v2, labelled set: one MATLAB v7.3 file, ``nyu_depth_v2_labeled.mat`` (Silberman et al., 2012)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mvde.datasets.decode import open_hdf5, require_file
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.datasets.splits import Split
from mvde.errors import DatasetError, MissingDependencyError, UsageError

FILE_NAME, SPLITS_NAME = "nyu_depth_v2_labeled.mat", "splits.mat"
SPLITS_URL = "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat"
# Colour camera, from the toolbox's camera_params.m; the depth maps are projected onto it.
INTRINSICS, SIZE = (518.8579, 519.46961, 325.58245, 253.73617), (480, 640)
DEPTH_RANGE_M = (1e-3, 10.0)
"""Protocol of Eigen et al., 2014: beyond 10 m the Kinect has no depth and the in-painted map is unreliable."""


class NyuDataset:
    """NYU Depth v2 labelled set; ``root`` is the file or its folder.

    ``split`` selects the 795 training or 654 test frames of ``splits.mat``, which lies beside the file. Depth is the
    in-painted ``depths`` in metres, as usual in evaluations; crops are left to the protocol. MATLAB is column-major, so
    HDF5 shows ``images`` as (N, 3, W, H) and ``depths`` as (N, W, H).
    """

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path, split: Split | None = None) -> None:
        self._path = root / FILE_NAME if root.is_dir() else root
        self._file: Any = None
        self._owner = 0
        file = self._open()
        for name, dimensions in (("images", 4), ("depths", 3)):
            if name not in file or file[name].ndim != dimensions:
                raise DatasetError(f"{self._path} has no {dimensions}-dimensional array '{name}'; is it {FILE_NAME}?")
        if file["images"].dtype != np.uint8:
            raise DatasetError(f"{self._path}: images are {file['images'].dtype}; expected uint8, as published")
        images, depths = file["images"].shape, file["depths"].shape
        if images[0] == 0 or images[1] != 3 or (images[0], *images[2:]) != depths:
            raise DatasetError(
                f"{self._path}: images {images} and depths {depths} do not have shapes (N, 3, W, H) and (N, W, H)"
            )
        count = int(images[0])
        self._frames = list(range(count)) if split is None else _frames_of(split, self._path, count)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < len(self._frames):
            raise IndexError(f"frame {index} of {len(self._frames)}")
        index = self._frames[index]
        file = self._open()
        try:
            rgb = np.ascontiguousarray(file["images"][index].transpose(2, 1, 0), dtype=np.uint8)
            depth_m = np.ascontiguousarray(file["depths"][index].T, dtype=np.float32)
        except OSError as error:
            raise DatasetError(f"{self._path}: frame {index} cannot be read: {error}") from error
        return DepthSample(rgb, depth_m, intrinsics_at(INTRINSICS, SIZE, depth_m.shape), f"{self._path.name}:{index}")

    def scene(self, index: int) -> str:
        """Return the name of the frame's room. Raises DatasetError for a file without the list ``scenes``."""
        file = self._open()
        try:
            letters = file[file["scenes"][0, self._frames[index]]][()]
            return bytes(np.asarray(letters, np.uint8).ravel()).decode("ascii")
        except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
            raise DatasetError(
                f"{self._path} has no readable list scenes of the rooms' names ({error}); is it {FILE_NAME}?"
            ) from error

    def _open(self) -> Any:
        # An HDF5 handle is invalid after a fork, so each worker process opens its own.
        if self._file is None or self._owner != os.getpid():
            self._file, self._owner = open_hdf5(self._path), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _frames_of(split: Split, labelled: Path, count: int) -> list[int]:
    """Indices (from 0, ascending) of a split's frames, from ``splits.mat`` beside the labelled set."""
    keys = {Split.TRAIN: "trainNdxs", Split.TEST: "testNdxs"}
    if split not in keys:
        raise UsageError(f"NYU's splits.mat has the splits train and test, not {split}")
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingDependencyError.for_extra("scipy", "train", "reading NYU's splits.mat") from error
    path = require_file(labelled.with_name(SPLITS_NAME), f"NYU's list of splits, from {SPLITS_URL},")
    try:
        numbers = np.asarray(loadmat(path)[keys[split]]).ravel().astype(np.int64)
    except (MatReadError, OSError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        raise DatasetError(f"{path} has no readable list {keys[split]}: {error}; get it from {SPLITS_URL}") from error
    if len(numbers) == 0 or numbers.min() < 1 or numbers.max() > count:
        raise DatasetError(f"{path} lists frames outside the {count} of {labelled}; do both belong together?")
    return sorted(int(number) - 1 for number in numbers)
