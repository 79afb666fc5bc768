"""What ``mvde export`` and ``mvde build`` share: the images that decide and judge a typed graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mvde.artifact import GraphArtifact
    from mvde.datasets.sample import DepthDataset
    from mvde.export.precision import LowerOptions
    from mvde.export.precision.options import HeldOut
    from mvde.manifest import Manifest

_HELD_OUT_SHARE = 4
"""One image in so many of a calibration folder judges instead of deciding."""


@dataclass(frozen=True)
class Judgement:
    """The options of ``mvde export --precision`` that choose images."""

    calibration: Path | None
    method: str
    rest: str
    data: Path | None
    data_format: str
    depth_scale: float
    max_frames: int

    def check(self, precisions: Sequence[str], onnx: Path | None, triton: Path | None) -> None:
        """Nothing, if the options fit together and what they name can be read; found out before a model is traced.

        Raises :class:`UsageError`, :class:`DatasetError` or :class:`ImageError`.
        """
        from mvde.errors import UsageError
        from mvde.export.precision import LowerOptions, check_options

        if not precisions and (self.calibration or self.data or (onnx and not triton)):
            raise UsageError("--onnx, --calibration and --data go with --precision (fp16, bf16, int8 or fp8)")
        for precision in precisions:
            check_options(precision, LowerOptions(method=self.method, rest=self.rest))
        if triton is not None and triton.exists() and not triton.is_dir():
            raise UsageError(f"{triton} is a file; --triton takes the folder of a model repository")
        if self.calibration is not None:
            _photographs(self.calibration)
        self._dataset()

    def options(self, manifest: Manifest) -> LowerOptions:
        """Options for lowering the graph of ``manifest``, its images read."""
        name = self.data.name if self.data else ""
        return lower_options(manifest, self.calibration, self.method, self.rest, self._dataset(), self.max_frames, name)

    def _dataset(self) -> DepthDataset | None:
        from mvde.datasets.formats import open_dataset

        return open_dataset(self.data_format, self.data, self.depth_scale) if self.data else None


def describe(typed: GraphArtifact) -> list[str]:
    """Lines that say what a typed graph is and what its gate measured."""
    record = typed.manifest.lowering
    assert record is not None
    nodes = ", ".join(f"{count} in {dtype}" for dtype, count in record.num_by_dtype.items())
    lines = [f"{typed.path}: nodes {nodes}; {typed.manifest.file.size_bytes / 1e6:.1f} MB"]
    lines += [f"  {item.group} stays in {item.dtype}: {item.reason}" for item in record.kept]
    balanced = record.calibration.balanced if record.calibration else {}
    lines += [f"  {kind}: {what}" for kind, what in balanced.items()]
    for run in record.gate.runs if record.gate else ():
        truth = "" if run.truth != "ground truth" else f"AbsRel {run.abs_rel_change:+.2%} of the fp32 graph's, "
        lines.append(
            f"  on {run.num_images} images ({run.images}; against {run.truth}): {truth}"
            f"|Δdepth|/depth mean {run.measured.mean_rel:.1e}, p99 {run.measured.p99_rel:.1e}"
        )
    return lines


def lower_options(
    manifest: Manifest,
    calibration: Path | None = None,
    method: str = "auto",
    rest: str = "fp32",
    data: DepthDataset | None = None,
    max_frames: int = 64,
    data_name: str = "",
) -> LowerOptions:
    """Options for lowering a graph: images of the folder ``calibration``, frames with ground truth of ``data``.

    Raises :class:`DatasetError` where the folder has too few images, :class:`ImageError` for one that cannot be read.
    """
    from mvde.export.precision import LowerOptions

    decides, judges = _split(manifest.resolution, calibration) if calibration else (None, [])
    if data is not None:
        judges.append(_frames(data, manifest, max_frames, data_name))
    return LowerOptions(decides, tuple(judges), method, rest, manifest.patch_size)


def _split(resolution: tuple[int, int], folder: Path) -> tuple[NDArray[np.uint8], list[HeldOut]]:
    """Images of a folder that decide, and those (every fourth) that judge."""
    import numpy as np

    from mvde.export.precision.options import HeldOut
    from mvde.runtime.placement import Fit, fitted

    images = fitted(_photographs(folder), resolution, Fit.CROP)
    judges = np.arange(len(images)) % _HELD_OUT_SHARE == _HELD_OUT_SHARE - 1
    return images[~judges], [HeldOut(images[judges], f"every fourth image of {folder.name}")]


def _photographs(folder: Path) -> list[NDArray[np.uint8]]:
    """Images of a calibration folder, as they are."""
    from mvde.errors import DatasetError
    from mvde.image import read_photographs

    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; --calibration takes a folder of photographs")
    images = read_photographs(folder)
    if len(images) < _HELD_OUT_SHARE:
        raise DatasetError(
            f"{folder} holds {len(images)} images; calibration needs at least {_HELD_OUT_SHARE}, of which one judges "
            "the result, and 50 or more to be worth it"
        )
    return images


def _frames(data: DepthDataset, manifest: Manifest, max_frames: int, name: str) -> HeldOut:
    """Evenly spread frames, stretched to the graph's resolution; depth is taken from the nearest pixel."""
    import numpy as np

    from mvde.camera import camera_factor
    from mvde.errors import DatasetError
    from mvde.export.precision.options import HeldOut
    from mvde.runtime.placement import Fit, fitted

    if len(data) == 0:
        raise DatasetError("the data set holds no frames; there is nothing to judge with")
    samples = [data[int(index)] for index in np.linspace(0, len(data) - 1, min(max_frames, len(data)))]
    resolution = manifest.resolution
    images = fitted([item.rgb for item in samples], resolution, Fit.STRETCH)
    low, high = manifest.depth_range_m
    canonical = manifest.canonical_focal
    depths = [_nearest(item.depth_m, resolution) / camera_factor(item.focal, canonical) for item in samples]
    known = [np.where((depth >= low) & (depth <= high), depth, 0) for depth in depths]
    return HeldOut(images, f"{len(samples)} frames of {name}", np.stack(known).astype(np.float32))


def _nearest(depth_m: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    import numpy as np

    rows, columns = (((np.arange(to) + 0.5) * of / to).astype(int) for to, of in zip(size, depth_m.shape, strict=True))
    return depth_m[np.ix_(rows, columns)]
