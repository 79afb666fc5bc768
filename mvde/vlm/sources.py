"""Where the depth of a picture comes from: a depth model, files beside the pictures, or a sensor's map."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mvde.contract import DepthKind
from mvde.datasets.decode import read_depth, require_directory
from mvde.errors import DatasetError, UsageError
from mvde.vlm.config import CameraRule
from mvde.vlm.geometry import size_of
from mvde.vlm.rows import AnyDepth, PictureDepth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera
    from mvde.runtime.depth import DepthRuntime
    from mvde.runtime.placement import Fit

_LOG = logging.getLogger(__name__)
_SUFFIXES = (".png", ".npy", ".depth.png", ".depth.npy")
"""Endings after a picture's name; the longer ones are those of ``mvde run``."""


@dataclass(frozen=True)
class Picture:
    """A picture of Pillow, or an RGB array (H, W, 3) uint8, and the file it was read from, if any."""

    image: Any
    path: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Size (H, W) in pixels."""
        return size_of(self.image)

    @property
    def name(self) -> str:
        """Name for messages."""
        return "the picture" if self.path is None else str(self.path)

    def pixels(self) -> NDArray[np.uint8]:
        """RGB (H, W, 3), uint8."""
        if isinstance(self.image, np.ndarray):
            return self.image
        return np.asarray(self.image.convert("RGB"))


class DepthSource(Protocol):
    """Gives depth of whole pictures, and says what its numbers are."""

    @property
    def depth_kind(self) -> DepthKind:
        """Meaning of the depth."""
        ...

    @property
    def camera_rule(self) -> CameraRule:
        """Which camera its metres were computed with."""
        ...

    @property
    def graph_sha256(self) -> str | None:
        """SHA-256 of the depth model's fp32 graph, ``None`` for depth that no model predicted."""
        ...

    def depth_of(self, picture: Picture, camera: Camera | None) -> AnyDepth:
        """Depth of a picture at its size, ``None`` where there is none; ``camera`` is the picture's, if known."""
        ...


class RuntimeSource:
    """Depth that a :class:`DepthRuntime` predicts, once for each whole picture.

    ``fit`` is that of :meth:`DepthRuntime.infer`. The runtime stays the caller's to close.
    """

    def __init__(self, runtime: DepthRuntime, fit: Fit | str | None = None) -> None:
        self._runtime, self._fit = runtime, fit

    @property
    def depth_kind(self) -> DepthKind:
        """Kind of the manifest, metric for a calibrated runtime."""
        return self._runtime.manifest.depth_kind if self._runtime.calibration is None else DepthKind.METRIC

    @property
    def camera_rule(self) -> CameraRule:
        """The frame's for kinds with a canonical camera."""
        return CameraRule.FRAME if self.depth_kind.has_canonical_camera else CameraRule.NONE

    @property
    def graph_sha256(self) -> str | None:
        """SHA-256 of the fp32 graph that the engine was built from."""
        return self._runtime.manifest.engine.onnx_sha256

    def depth_of(self, picture: Picture, camera: Camera | None) -> PictureDepth:
        """Predict depth of a picture."""
        result = self._runtime.infer(np.ascontiguousarray(picture.pixels()), self._fit, camera=camera)
        return PictureDepth(result.depth, result.camera)


class DepthFiles:
    """Depth maps in a folder, each named as its picture: ``NAME.png`` or ``NAME.npy``, or as ``mvde run`` names them.

    ``units_per_metre`` is the stored value of one metre; default: 1000 (millimetres) for a 16-bit PNG or an integer
    ``.npy``, and 1 for a floating-point ``.npy``. A picture without a map has no depth; the first is logged, and
    ``num_missing`` counts them. Pictures must be given as paths, or opened from a file by Pillow.

    Raises :class:`DatasetError` for a folder without depth maps, or a damaged one.
    """

    camera_rule = CameraRule.NONE
    graph_sha256 = None

    def __init__(
        self,
        folder: str | Path,
        units_per_metre: float | None = None,
        depth_kind: DepthKind = DepthKind.METRIC,
    ) -> None:
        self._folder = require_directory(Path(folder), "depth maps (16-bit .png, or .npy)")
        if not any(path.suffix.lower() in (".png", ".npy") for path in self._folder.iterdir()):
            raise DatasetError(f"{self._folder} holds no depth map (16-bit .png, or .npy)")
        if units_per_metre is not None and not 0 < units_per_metre < np.inf:
            raise UsageError(f"the stored value of one metre must be a positive number, but got {units_per_metre}")
        self._units_per_metre = units_per_metre
        self.depth_kind = depth_kind
        self.num_missing = 0

    def depth_of(self, picture: Picture, camera: Camera | None) -> PictureDepth | None:
        """Depth of the picture's file, ``None`` if it has none."""
        if picture.path is None:
            raise UsageError(
                "depth files are found by the picture's name, but this picture was given without one; give its path, "
                "or its depth with depth="
            )
        path = next((one for one in self._candidates(picture.path.stem) if one.is_file()), None)
        if path is None:
            if not self.num_missing:
                _LOG.warning("%s has no depth in %s; such pictures go without", picture.path, self._folder)
            self.num_missing += 1
            return None
        return checked(read_depth(path, self._units_per_metre), picture, str(path), camera)

    def _candidates(self, stem: str) -> list[Path]:
        return [self._folder / f"{stem}{suffix}" for suffix in _SUFFIXES]


class GivenDepth:
    """Depth that is given with each call, such as a sensor's map registered to the picture; it has none of its own."""

    camera_rule = CameraRule.NONE
    graph_sha256 = None

    def __init__(self, depth_kind: DepthKind = DepthKind.METRIC) -> None:
        self.depth_kind = depth_kind

    def depth_of(self, picture: Picture, camera: Camera | None) -> PictureDepth | None:
        """Raise :class:`UsageError`: depth must be given."""
        raise UsageError(
            f"{picture.name} was given without depth, and there is no source to ask: give depth=[map, …], with None "
            "for a picture without depth, or make the DepthProcessor with a source"
        )


def source_of(source: Any) -> DepthSource:
    """Source for a :class:`DepthRuntime`, a folder of depth files or of ``mvde stats``, or ``None``.

    Without one, depth is given with each call.
    """
    from mvde.bulk.fingerprint import FILE_NAME
    from mvde.bulk.folder import StatsFolder
    from mvde.runtime.depth import DepthRuntime

    if source is None:
        return GivenDepth()
    if isinstance(source, StatsFolder) or (isinstance(source, (str, Path)) and (Path(source) / FILE_NAME).is_file()):
        from mvde.vlm.stored import StoredStats

        return StoredStats(source)
    if isinstance(source, DepthRuntime):
        return RuntimeSource(source)
    if isinstance(source, (str, Path)):
        return DepthFiles(source)
    if not hasattr(source, "depth_of"):
        raise UsageError(
            f"a source of depth is a DepthRuntime, a folder, a StatsFolder or an object with depth_of, but got "
            f"{type(source).__name__}"
        )
    found: DepthSource = source
    return found


def given_map(depth: Any, picture: Picture, camera: Camera | None) -> PictureDepth | None:
    """Depth given for a picture: a map (H, W) of floating-point numbers, a file, or ``None``.

    Raises :class:`UsageError` for another type or size.
    """
    if depth is None:
        return None
    if isinstance(depth, (str, Path)):
        return checked(read_depth(Path(depth), None), picture, str(depth), camera)
    values = depth.filled(np.nan) if isinstance(depth, np.ma.MaskedArray) else np.asarray(depth)
    if values.dtype.kind != "f":
        raise UsageError(
            f"the depth given for {picture.name} is {type(depth).__name__} of {values.dtype}, but a map (H, W) of "
            "floating-point numbers in the source's unit is expected; whole millimetres are depth / 1000 metres"
        )
    return checked(values, picture, "the depth given for it", camera)


def checked(depth: NDArray[Any], picture: Picture, name: str, camera: Camera | None) -> PictureDepth:
    """Depth as float32. Raises :class:`UsageError` unless it has the picture's size."""
    if depth.shape != picture.size:
        raise UsageError(
            f"{name} is {depth.shape} (H, W), but {picture.name} is {picture.size}; register the map to the picture, "
            "or resize it without blending (nearest neighbour)"
        )
    return PictureDepth(np.asarray(depth, dtype=np.float32), camera)
