"""Calibration and held-out images for typed graphs: from a folder, a data set, or the bundled photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvde.assets import sample_photos
from mvde.errors import DatasetError, UsageError
from mvde.export.precision.lowering_options import HeldOut, LowerOptions
from mvde.export.range_method import RangeMethod
from mvde.image import read_image, read_photographs
from mvde.precision import Precision
from mvde.protocols import EvaluationProtocol
from mvde.resampling import DEFAULT_RESAMPLING, Resampling
from mvde.runtime.frame_camera import camera_factor
from mvde.runtime.placement import Fit, Placement, fitted, place

if TYPE_CHECKING:
    from mvde.datasets.sample import DepthDataset
    from mvde.manifest import GraphManifest

    ImageArray = NDArray[np.uint8]

CALIBRATION_LEVELS = (1, 2, 4, 8)
"""Crops at the whole, half, quarter and eighth of a photograph's shorter side.

Six whole photographs contain no near walls: with them alone the decoder's largest activations were half of those on
rendered rooms, where int8 depth was 7 % off. With the smaller crops, which one surface can fill, they were nine tenths,
and depth was 1 % off.
"""

HELD_OUT_LEVELS = (1, 2)

_HELD_OUT_SHARE = 4
"""One image in this many of a folder is held out."""


def lower_options(
    manifest: GraphManifest,
    images_folder: Path | None = None,
    method: RangeMethod = RangeMethod.AUTO,
    rest: Precision = Precision.FP32,
    dataset: DepthDataset | None = None,
    max_frames: int = 64,
    dataset_name: str = "",
    protocol: EvaluationProtocol | None = None,
    weight_bits: int = 8,
) -> LowerOptions:
    """Options for lowering a graph, with images of a folder and frames with ground truth of a data set.

    Raises :class:`DatasetError` if the folder has too few images or the data set no frame, :class:`ImageError` for an
    unreadable image, :class:`UsageError` for an unknown method or rest.
    """
    decides: ImageArray | None = None
    judges: list[HeldOut] = []
    resampling = Resampling.of(manifest.preprocess)
    if images_folder is not None:
        decides, held_out = quantization_images(images_folder, manifest.resolution, resampling)
        judges.append(held_out)
    if dataset is not None:
        judges.append(judging_frames(dataset, manifest, max_frames, dataset_name, protocol))
    return LowerOptions(
        decides,
        tuple(judges),
        method,
        rest,
        manifest.stats_patch,
        manifest.depth_kind,
        resampling=resampling,
        weight_bits=weight_bits,
    )


def quantization_images(
    folder: Path, resolution: tuple[int, int], resampling: Resampling = DEFAULT_RESAMPLING
) -> tuple[ImageArray, HeldOut]:
    """Calibration images (K, H, W, 3) of a folder, and every fourth as held-out, cropped to ``resolution``.

    Raises :class:`DatasetError` if there are too few, :class:`ImageError` for an unreadable one.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; --quantization-images takes a folder of photographs")
    photographs = read_photographs(folder)
    if len(photographs) < _HELD_OUT_SHARE:
        raise DatasetError(
            f"{folder} holds {len(photographs)} images; quantisation needs at least {_HELD_OUT_SHARE}, one of which "
            "is held out; 50 or more are recommended"
        )
    images = fitted(photographs, resolution, Fit.CROP, resampling)
    judges = np.arange(len(images)) % _HELD_OUT_SHARE == _HELD_OUT_SHARE - 1
    return images[~judges], HeldOut(images[judges], f"every fourth image of {folder.name}")


def judging_frames(
    dataset: DepthDataset,
    manifest: GraphManifest,
    max_frames: int,
    name: str,
    protocol: EvaluationProtocol | None = None,
) -> HeldOut:
    """Evenly spaced frames of a data set, resized as the manifest says, with nearest-neighbour depth.

    Depth is in metres in the graph's canonical camera, and 0 around the frame and where ``protocol`` excludes it: by
    default outside the range of the data set, never that of the graph. Raises :class:`DatasetError` for an empty data
    set.
    """
    if len(dataset) == 0:
        raise DatasetError("the data set holds no frames; there is nothing to validate with")
    indices = np.linspace(0, len(dataset) - 1, min(max_frames, len(dataset)))
    samples = [dataset[int(index)] for index in indices]
    resolution = manifest.resolution
    fit, resampling = Fit(manifest.preprocess.fit), Resampling.of(manifest.preprocess)
    images = fitted([item.rgb for item in samples], resolution, fit, resampling)
    judged_by = protocol or EvaluationProtocol(dataset.depth_range_m)
    counted = [np.where(judged_by.counted(item.depth_m), item.depth_m, np.float32(0)) for item in samples]
    places = [place((item.shape[0], item.shape[1]), resolution, fit, resampling) for item in counted]
    known = [
        _nearest(depth_m, where) / camera_factor(manifest, item.camera, where)
        for depth_m, item, where in zip(counted, samples, places, strict=True)
    ]
    return HeldOut(images, f"{len(samples)} frames of {name}", np.stack(known).astype(np.float32))


def default_images(
    resolution: tuple[int, int], limit: int, resampling: Resampling = DEFAULT_RESAMPLING
) -> tuple[ImageArray, HeldOut]:
    """Calibration and held-out images (K, H, W, 3), at most ``limit`` of each, from disjoint photographs."""
    paths = sample_photos()
    calibration = _crops(paths[::2], CALIBRATION_LEVELS, resolution, limit, resampling)
    held_out = _crops(paths[1::2], HELD_OUT_LEVELS, resolution, limit, resampling)
    return calibration, HeldOut(held_out, "photographs that calibration did not see")


def fingerprint(images: ImageArray) -> str:
    """SHA-256 of the pixels and their shape."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def check_images(images: ImageArray, resolution: tuple[int, int], what: str) -> None:
    """Raise :class:`UsageError` unless ``images`` is non-empty uint8 RGB at the graph's resolution."""
    expected = (*resolution, 3)
    if images.ndim != 4 or len(images) == 0 or images.shape[1:] != expected or images.dtype != np.uint8:
        raise UsageError(
            f"{what} must be (K, {expected[0]}, {expected[1]}, 3) uint8 with K at least 1, but got {images.shape} "
            f"{images.dtype}"
        )


def _crops(
    paths: Sequence[Path], levels: Sequence[int], resolution: tuple[int, int], limit: int, resampling: Resampling
) -> ImageArray:
    """Square crops spread evenly over each photograph, level by level, subsampled to at most ``limit``."""
    photographs = [read_image(path) for path in paths]
    crops = [crop for level in levels for photograph in photographs for crop in _squares(photograph, level)]
    taken = np.linspace(0, len(crops) - 1, min(limit, len(crops))).astype(int)
    return fitted([crops[index] for index in taken], resolution, Fit.STRETCH, resampling)


def _squares(photograph: ImageArray, level: int) -> list[ImageArray]:
    """Views of ``level`` by ``level`` squares, each that fraction of the shorter side."""
    height, width = photograph.shape[:2]
    side = min(height, width) // level
    return [
        photograph[int(top) : int(top) + side, int(left) : int(left) + side]
        for top in np.linspace(0, height - side, level)
        for left in np.linspace(0, width - side, level)
    ]


def _nearest(depth_m: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Depth (H, W) placed in the input by nearest neighbour at pixel centres, 0 around it."""
    sizes = zip(placement.target_box.size, depth_m.shape, strict=True)
    rows, columns = (((np.arange(to) + 0.5) * of / to).astype(int) for to, of in sizes)
    placed = np.zeros(placement.target_size, np.float32)
    placed[placement.target_box.slices] = depth_m[np.ix_(rows, columns)]
    return placed
