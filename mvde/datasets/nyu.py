"""NYU Depth v2, the labelled set: one MATLAB v7.3 file, ``nyu_depth_v2_labeled.mat`` (Silberman et al., 2012)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from mvde.datasets.decode import open_hdf5
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError

FILE_NAME = "nyu_depth_v2_labeled.mat"
# Of the colour camera, from the toolbox's camera_params.m; the depth maps are projected onto it.
INTRINSICS, SIZE = (518.8579, 519.46961, 325.58245, 253.73617), (480, 640)


class NyuDataset:
    """Samples of the labelled set; ``root`` is the file or its folder.

    Depth is the in-painted ``depths`` in metres, as in the usual evaluation; the usual crop is not applied. MATLAB
    stores columns first, so HDF5 shows ``images`` as (N, 3, W, H) and ``depths`` as (N, W, H).
    """

    def __init__(self, root: Path) -> None:
        self._path = root / FILE_NAME if root.is_dir() else root
        self._file: Any = None
        self._owner = 0
        file = self._open()
        for name, dimensions in (("images", 4), ("depths", 3)):
            if name not in file or file[name].ndim != dimensions:
                raise DatasetError(f"{self._path} has no {dimensions}-dimensional array '{name}'; is it {FILE_NAME}?")
        images, depths = file["images"].shape, file["depths"].shape
        if images[0] == 0 or images[1] != 3 or (images[0], *images[2:]) != depths:
            raise DatasetError(
                f"{self._path}: images {images} and depths {depths} do not fit (N, 3, W, H) and (N, W, H)"
            )
        self._length = int(images[0])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < self._length:
            raise IndexError(f"frame {index} of {self._length}")
        file = self._open()
        try:
            rgb = np.ascontiguousarray(file["images"][index].transpose(2, 1, 0), dtype=np.uint8)
            depth_m = np.ascontiguousarray(file["depths"][index].T, dtype=np.float32)
        except OSError as error:
            raise DatasetError(f"{self._path}: frame {index} cannot be read: {error}") from error
        return DepthSample(rgb, depth_m, intrinsics_at(INTRINSICS, SIZE, depth_m.shape), f"{self._path.name}:{index}")

    def _open(self) -> Any:
        # An HDF5 handle must not be used after a fork, so each worker process opens its own.
        if self._file is None or self._owner != os.getpid():
            self._file, self._owner = open_hdf5(self._path), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}
