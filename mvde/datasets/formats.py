"""Data sets by name of their on-disk format; readers are imported on demand."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.datasets.splits import Split, check_split
from mvde.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from mvde.datasets.sample import DepthDataset


class DataFormat(str, Enum):
    """On-disk format of a data set; its value is the name in options and configurations."""

    FOLDER = "folder"
    SYNTHETIC = "synthetic"
    CLIPS = "clips"
    NYU = "nyu"
    KITTI = "kitti"
    TUM = "tum"
    SEVEN_SCENES = "7scenes"
    DIODE = "diode"
    HYPERSIM = "hypersim"
    SHARDS = "shards"

    def __str__(self) -> str:
        return self.value


_WITH_PARTS = (DataFormat.SYNTHETIC, DataFormat.CLIPS, DataFormat.NYU, DataFormat.KITTI)


class ShardKind(str, Enum):
    """File format of shards."""

    WEBDATASET = "webdataset"
    PARQUET = "parquet"

    def __str__(self) -> str:
        return self.value

    @property
    def suffix(self) -> str:
        """Suffix of a shard's file."""
        return ".tar" if self is ShardKind.WEBDATASET else ".parquet"


def check_format(text: DataFormat | str) -> DataFormat:
    """Convert text to a :class:`DataFormat`. Raises :class:`ConfigError` for an unknown format."""
    try:
        return DataFormat(text)
    except ValueError as error:
        raise ConfigError(f"data.format must be one of {', '.join(DataFormat)}, but got {text!r}") from error


def open_dataset(
    data_format: DataFormat | str,
    root: str | Path,
    depth_scale: float | None = None,
    split: Split | str | None = None,
) -> DepthDataset:
    """Open the data set of a format under ``root``, or the split of it named by ``split``.

    ``depth_scale`` is the stored value of one metre and only applies to ``folder`` (see
    :class:`mvde.datasets.folder.FolderDataset`): the other formats define their unit.

    Raises ConfigError for an unknown format, UsageError for a split of a format without splits, DatasetError for a
    missing or malformed file, MissingDependencyError if a reader's package is not installed.
    """
    if str(root).startswith("rendered:"):
        from mvde.datasets.synth.rendered import open_rendered

        return open_rendered(str(root))
    path, known = Path(root), check_format(data_format)
    part = None if split is None else check_split(split)
    if part is not None and known not in _WITH_PARTS:
        raise UsageError(
            f"a data set of the format {known} has no {part} split; give --data the folder of that split, without "
            f"--split (formats with splits: {', '.join(_WITH_PARTS)})"
        )
    match known:
        case DataFormat.FOLDER:
            from mvde.datasets.folder import FolderDataset

            return FolderDataset(path, depth_scale)
        case DataFormat.SYNTHETIC:
            from mvde.datasets.synthetic import SyntheticDataset

            return SyntheticDataset(path, part)
        case DataFormat.CLIPS:
            from mvde.datasets.clips import ClipDataset

            return ClipDataset(path, part)
        case DataFormat.NYU:
            from mvde.datasets.nyu import NyuDataset

            return NyuDataset(path, part)
        case DataFormat.KITTI:
            from mvde.datasets.kitti import KittiDataset

            return KittiDataset(path, part)
        case DataFormat.TUM:
            from mvde.datasets.tum import TumDataset

            return TumDataset(path)
        case DataFormat.SEVEN_SCENES:
            from mvde.datasets.seven_scenes import SevenScenesDataset

            return SevenScenesDataset(path)
        case DataFormat.DIODE:
            from mvde.datasets.diode import DiodeDataset

            return DiodeDataset(path)
        case DataFormat.HYPERSIM:
            from mvde.datasets.hypersim import HypersimDataset

            return HypersimDataset(path)
        case DataFormat.SHARDS:
            from mvde.datasets.shards import ShardDataset

            return ShardDataset(path)
