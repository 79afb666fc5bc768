"""TUM RGB-D (Sturm et al., 2012): ``rgb.txt`` and ``depth.txt``, 16-bit PNG, metres * 5000."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mvde.datasets.decode import check_same_size, read_depth_png, read_rgb, require_file
from mvde.datasets.intrinsics import intrinsics_at
from mvde.datasets.sample import DepthSample
from mvde.errors import DatasetError

UNITS_PER_METRE = 5000.0
LARGEST_GAP_S = 0.02
# From the data set's page on file formats; the sequence's name identifies the camera.
INTRINSICS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
SIZE = (480, 640)
"""Height and width of the pictures to which the intrinsics apply."""
DEPTH_RANGE_M = (1e-3, 10.0)
"""Range of the Kinect, whose depth steps exceed 0.2 m beyond 10 m."""


class TumDataset:
    """Samples of one sequence: pictures with the depth map nearest in time, paired as by ``associate.py``.

    The camera is known if a folder of the path names it (freiburg1 to freiburg3, or fr1 to fr3).
    """

    depth_range_m = DEPTH_RANGE_M

    def __init__(self, root: Path) -> None:
        colour, depth = _read_list(root / "rgb.txt"), _read_list(root / "depth.txt")
        matched = associate(list(colour), list(depth))
        self._pairs = [(root / colour[a], root / depth[b]) for a, b in matched]
        self.times_s = [a for a, _ in matched]
        """When each picture was taken, in seconds."""
        if not self._pairs:
            raise DatasetError(
                f"{root / 'rgb.txt'} and {root / 'depth.txt'} have no timestamps within {LARGEST_GAP_S} s of each other"
            )
        self._intrinsics = _intrinsics_of(root)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> DepthSample:
        rgb_path, depth_path = self._pairs[index]
        rgb, depth_m = read_rgb(rgb_path), read_depth_png(depth_path, UNITS_PER_METRE)
        check_same_size(rgb, depth_m, rgb_path, depth_path)
        known = self._intrinsics
        intrinsics = None if known is None else intrinsics_at(known, SIZE, depth_m.shape)
        return DepthSample(rgb, depth_m, intrinsics, rgb_path.name)

    def scene(self, index: int) -> str:
        """Return the folder of the sequence, which is one scene."""
        return self._pairs[index][0].parents[1].name


def associate(
    first: list[float], second: list[float], largest_gap_s: float = LARGEST_GAP_S
) -> list[tuple[float, float]]:
    """Pair timestamps (s), each used once, closest pairs first; return the pairs in the order of ``first``."""
    others = np.sort(np.array(second))
    close = [
        (abs(a - b), a, b)
        for a in first
        for b in others[
            np.searchsorted(others, a - largest_gap_s) : np.searchsorted(others, a + largest_gap_s, "right")
        ]
        if abs(a - b) < largest_gap_s
    ]
    left, right = set(first), set(second)
    pairs = []
    for _, a, b in sorted(close):
        if a in left and b in right:
            left.remove(a)
            right.remove(b)
            pairs.append((a, float(b)))
    return sorted(pairs)


def _intrinsics_of(root: Path) -> tuple[float, float, float, float] | None:
    """Intrinsics of the camera named by the innermost matching folder."""
    for name in reversed(root.resolve().parts):
        if found := re.search(r"(?:freiburg|(?<![a-z0-9])fr)([123])(?!\d)", name.lower()):
            return INTRINSICS[f"freiburg{found[1]}"]
    return None


def _read_list(path: Path) -> dict[float, str]:
    """Read file names by timestamp (s)."""
    listed: dict[float, str] = {}
    for number, line in enumerate(require_file(path, "a list of times and files").read_text().splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            time_s, name = float(words[0]), words[1]
        except (ValueError, IndexError):
            raise DatasetError(f"{path}, line {number}: expected 'time file', but got {line!r}") from None
        listed[time_s] = name
    return listed
