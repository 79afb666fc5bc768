"""Opening a data set by the name of its on-disk format."""

from __future__ import annotations

from pathlib import Path

from mvde.datasets.base import DepthDataset, DepthSample
from mvde.datasets.diode import DiodeDataset
from mvde.datasets.folder import FolderDataset
from mvde.datasets.hypersim import HypersimDataset
from mvde.datasets.kitti import KittiDataset
from mvde.datasets.nyu import NyuDataset
from mvde.datasets.synthetic import SyntheticFrames
from mvde.datasets.tum import TumDataset
from mvde.errors import ConfigError

FORMATS = ("folder", "synthetic", "nyu", "kitti", "tum", "diode", "hypersim")


def open_dataset(format_name: str, root: str | Path, depth_scale: float = 1000.0) -> DepthDataset:
    """The data set of that format under ``root``.

    ``depth_scale`` is the stored value of one metre and matters to ``folder`` alone: the others define their unit.
    Raises ConfigError for an unknown format, DatasetError for a missing or malformed file, MissingDependencyError
    where a reader needs a package that is not installed.
    """
    path = Path(root)
    match format_name:
        case "folder":
            return FolderDataset(path, depth_scale)
        case "synthetic":
            return SyntheticDataset(path)
        case "nyu":
            return NyuDataset(path)
        case "kitti":
            return KittiDataset(path)
        case "tum":
            return TumDataset(path)
        case "diode":
            return DiodeDataset(path)
        case "hypersim":
            return HypersimDataset(path)
    raise ConfigError(f"data.format must be one of {', '.join(FORMATS)}, but got {format_name!r}")


class SyntheticDataset:
    """Samples of a folder that ``mvde data synth`` filled."""

    def __init__(self, root: Path) -> None:
        self._frames = SyntheticFrames(root)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> DepthSample:
        rgb, depth_m, intrinsics = self._frames.frame(index)
        return DepthSample(rgb, depth_m, intrinsics, f"frame {index}")
