"""KITTI depth (Uhrig et al., 2017): 16-bit PNG, metres * 256, 0 without lidar return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvde.datasets.decode import check_same_size, read_depth_png, read_rgb, require_directory, require_file
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.datasets.splits import Split
from mvde.errors import DatasetError

UNITS_PER_METRE = 256.0
TEST_FILES = "test_files.txt"
TEST_FILES_URL = "https://github.com/nianticlabs/monodepth2/blob/master/splits/eigen/test_files.txt"
SELECTION_SIZE = (352, 1216)
"""Height and width of the selection's cropped pictures, to which its intrinsics apply."""

_Calibration = tuple[NDArray[np.float32], tuple[int, int]]
"""Intrinsics, and the height and width of the pictures they apply to."""
DEPTH_RANGE_M = (1e-3, 80.0)
"""Protocol of Eigen et al., 2014: lidar returns are dense enough up to 80 m."""


class KittiDataset:
    """KITTI depth in either of its two published layouts.

    - the selection (``val_selection_cropped``): ``image/``, ``groundtruth_depth/``, ``intrinsics/`` side by side;
    - the annotated drives: ``[train|val/]DRIVE/proj_depth/groundtruth/image_02/N.png``, with the raw pictures in
      ``DRIVE/image_02/data/N.png`` or under ``DATE/DRIVE/image_02/data/N.png``, and ``DATE/calib_cam_to_cam.txt``.

    ``split`` selects a part of the latter: its folder ``train`` or ``val``, or, for the test split, the frames of Eigen
    et al. listed in ``test_files.txt`` beside them, as in monodepth2 and BTS; 652 of the 697 have improved ground
    truth.
    """

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path, split: Split | None = None) -> None:
        require_directory(root, "KITTI's depth_selection or annotated drives")
        self._root = root
        self._depths = sorted((root / "groundtruth_depth").glob("*.png"))
        self._is_selection = bool(self._depths)
        if not self._is_selection:
            self._depths = sorted(root.glob("**/proj_depth/groundtruth/image_0[23]/*.png"))
        if not self._depths:
            raise DatasetError(
                f"{root} holds neither groundtruth_depth/*.png nor DRIVE/proj_depth/groundtruth/image_0[23]/*.png"
            )
        if split is not None:
            self._depths = self._part(split)

    def _part(self, split: Split) -> list[Path]:
        """Depth maps of a split. Raises DatasetError if there are none."""
        if self._is_selection:
            raise DatasetError(f"{self._root} is KITTI's selection, which has no splits; use the annotated drives")
        if split is not Split.TEST:
            found = [path for path in self._depths if path.relative_to(self._root).parts[0] == split]
            if not found:
                raise DatasetError(f"{self._root / split} holds no annotated drives")
            return found
        listed = _read_test_files(require_file(self._root / TEST_FILES, f"Eigen's test frames, from {TEST_FILES_URL},"))
        found = [path for path in self._depths if (path.parents[3].name, path.parent.name, path.stem) in listed]
        if not found:
            raise DatasetError(f"{self._root} has depth for none of the {len(listed)} frames of {TEST_FILES}")
        return found

    def __len__(self) -> int:
        return len(self._depths)

    def __getitem__(self, index: int) -> DepthSample:
        path = self._depths[index]
        rgb_path, camera = self._selection_frame(path) if self._is_selection else self._annotated_frame(path)
        rgb, depth_m = read_rgb(rgb_path), read_depth_png(path, UNITS_PER_METRE)
        check_same_size(rgb, depth_m, rgb_path, path)
        intrinsics = None if camera is None else intrinsics_at(*camera, depth_m.shape)
        return DepthSample(rgb, depth_m, intrinsics, path.relative_to(self._root).as_posix())

    def scene(self, index: int) -> str:
        """Return the name of the frame's drive, which begins the names of the selection's files."""
        path = self._depths[index]
        return path.name.split("_sync_")[0] if self._is_selection else path.parents[3].name

    def _selection_frame(self, path: Path) -> tuple[Path, _Calibration | None]:
        name = path.name.replace("groundtruth_depth", "image")
        matrix = self._root / "intrinsics" / f"{Path(name).stem}.txt"
        return self._root / "image" / name, (_from_matrix(matrix), SELECTION_SIZE) if matrix.exists() else None

    def _annotated_frame(self, path: Path) -> tuple[Path, _Calibration | None]:
        camera, drive_folder = path.parent.name, path.parents[3]
        drive = drive_folder.name
        date = drive[:10]
        candidates = [drive_folder, self._root / date / drive, self._root / "raw" / date / drive]
        candidates.append(self._root.parent / "raw" / date / drive)
        for folder in candidates:
            picture = folder / camera / "data" / path.name
            if picture.is_file():
                return picture, _from_calibration(folder.parent / "calib_cam_to_cam.txt", camera)
        tried = ", ".join(str(folder / camera / "data") for folder in candidates)
        raise DatasetError(f"{path} has no raw picture {path.name}; looked in {tried}")


def _read_test_files(path: Path) -> set[tuple[str, str, str]]:
    """Parse (drive, camera, frame) per line: ``DATE/DRIVE FRAME l|r``, or a path to the raw picture as first word."""
    frames = set()
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        parts = words[0].split("/")
        if len(words) == 3 and len(parts) == 2 and words[1].isdigit() and words[2] in ("l", "r"):
            frames.add((parts[1], "image_02" if words[2] == "l" else "image_03", f"{int(words[1]):010d}"))
        elif len(parts) == 5:
            frames.add((parts[1], parts[2], Path(parts[4]).stem))
        else:
            raise DatasetError(f"{path}, line {number}: expected 'DATE/DRIVE FRAME l', but got {line!r}")
    return frames


def _from_matrix(path: Path) -> NDArray[np.float32]:
    """Read intrinsics from a 3x3 matrix written as nine numbers."""
    return _numbers_at(path, path.read_text().split(), 9, (0, 4, 2, 5))


def _from_calibration(path: Path, camera: str) -> _Calibration | None:
    """Read the rectified camera's intrinsics (from the 3x4 matrix ``P_rect_0X``) and picture size.

    ``None`` if the file does not exist or does not state the size (``S_rect_0X``).
    """
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    matrix, size = (lines.get(f"{kind}_rect_{camera[-2:]}") for kind in ("P", "S"))
    if matrix is None:
        raise DatasetError(f"{path} has no line P_rect_{camera[-2:]}:")
    intrinsics = _numbers_at(path, matrix.split(), 12, (0, 5, 2, 6))
    if size is None:
        return None
    width, height = _numbers_at(path, size.split(), 2, (0, 1))
    return intrinsics, (round(float(height)), round(float(width)))


def _numbers_at(path: Path, words: list[str], count: int, places: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        values = np.array(words, dtype=np.float32)
    except ValueError as error:
        raise DatasetError(f"{path} holds something other than numbers: {error}") from error
    if values.size != count:
        raise DatasetError(f"{path} holds {values.size} numbers; expected {count}")
    return values[list(places)]
