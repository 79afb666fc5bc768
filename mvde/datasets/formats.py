"""Opening a data set by the name of its on-disk format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mvde.datasets.base import DepthDataset, DepthSample
from mvde.errors import ConfigError

FORMATS = ("folder", "synthetic", "nyu", "kitti", "tum", "diode", "hypersim")


def open_dataset(format_name: str, root: str | Path, depth_scale: float = 1000.0) -> DepthDataset:
    """The data set of that format under ``root``.

    ``depth_scale`` is the stored value of one metre and matters to ``folder`` alone: the others define their unit.
    Raises ConfigError for an unknown format, DatasetError for a missing or malformed file, MissingDependencyError
    where a reader needs a package that is not installed.
    """
    openers: dict[str, Callable[[Path], DepthDataset]] = {"synthetic": _FrameSequence}
    if format_name not in openers:
        raise ConfigError(f"data.format must be one of {', '.join(FORMATS)}, but got {format_name!r}")
    return openers[format_name](Path(root))


class _FrameSequence:
    """Synthetic frames as samples."""

    def __init__(self, root: Path) -> None:
        from mvde.datasets.synthetic import SyntheticFrames

        self._frames = SyntheticFrames(root)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthSample:
        rgb, depth_m, intrinsics = self._frames.frame(index)
        return DepthSample(rgb, depth_m, intrinsics, f"frame {index}")
