"""Opening a data set by the name of its on-disk format; a reader is imported when its format is asked for."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from mvde.datasets.splits import Split, check_split
from mvde.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from mvde.datasets.sample import DepthDataset


class DataFormat(str, Enum):
    """How a data set lies on disk; its text is the one in options and configurations."""

    FOLDER = "folder"
    SYNTHETIC = "synthetic"
    NYU = "nyu"
    KITTI = "kitti"
    TUM = "tum"
    DIODE = "diode"
    HYPERSIM = "hypersim"

    def __str__(self) -> str:
        return self.value


_WITH_PARTS = (DataFormat.SYNTHETIC, DataFormat.NYU, DataFormat.KITTI)


def check_format(text: DataFormat | str) -> DataFormat:
    """The text as a :class:`DataFormat`. Raises :class:`ConfigError` where it is none."""
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
    """The data set of that format under ``root``, or the part of it that ``split`` names.

    ``depth_scale`` is the stored value of one metre and matters to ``folder`` alone (see
    :class:`mvde.datasets.folder.FolderDataset`): the others define their unit.
    Raises ConfigError for an unknown format, UsageError for a part of one that has none, DatasetError for a missing or
    malformed file, MissingDependencyError where a reader needs a package that is not installed.
    """
    path, known = Path(root), check_format(data_format)
    part = None if split is None else check_split(split)
    if part is not None and known not in _WITH_PARTS:
        raise UsageError(
            f"a data set of the format {known} does not say which frames are for {part}; give --data the folder of "
            f"that part, without --split (formats with parts: {', '.join(_WITH_PARTS)})"
        )
    match known:
        case DataFormat.FOLDER:
            from mvde.datasets.folder import FolderDataset

            return FolderDataset(path, depth_scale)
        case DataFormat.SYNTHETIC:
            from mvde.datasets.synthetic import SyntheticDataset

            return SyntheticDataset(path, part)
        case DataFormat.NYU:
            from mvde.datasets.nyu import NyuDataset

            return NyuDataset(path, part)
        case DataFormat.KITTI:
            from mvde.datasets.kitti import KittiDataset

            return KittiDataset(path, part)
        case DataFormat.TUM:
            from mvde.datasets.tum import TumDataset

            return TumDataset(path)
        case DataFormat.DIODE:
            from mvde.datasets.diode import DiodeDataset

            return DiodeDataset(path)
        case DataFormat.HYPERSIM:
            from mvde.datasets.hypersim import HypersimDataset

            return HypersimDataset(path)
