"""Preprocessing of a checkpoint, from its own ``preprocessor_config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvde.contract import Interpolation, PreprocessRecord
from mvde.errors import CheckpointError
from mvde.families.checkpoint import ModelFolder

_BILINEAR, _BICUBIC = 2, 3  # Pillow's numbers, which the files hold
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ProcessorDefaults:
    """What the processor's class does where the file says nothing, and how it resizes.

    ``types`` are the names of the classes, without suffixes such as ``Fast``.
    """

    types: tuple[str, ...]
    size: tuple[int, int] | None
    resample: int
    antialias: bool = True
    do_normalize: bool = True
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    align_corners: bool = False


@dataclass(frozen=True)
class ProcessorFile:
    """Settings of an image processor; ``size`` is (H, W), ``None`` where frames keep theirs."""

    size: tuple[int, int] | None
    keep_aspect: bool
    multiple: int
    record: PreprocessRecord


def read_processor(folder: ModelFolder, defaults: ProcessorDefaults) -> ProcessorFile:
    """Read the preprocessing of a model; raises :class:`CheckpointError` if it is missing or contradicts itself."""
    given = folder.processor
    if not given:
        raise CheckpointError(
            f"{folder.name!r} has no preprocessor_config.json, so its mean, deviation and size are unknown; copy the "
            "file from the model's page"
        )
    _check_type(folder, defaults)
    if given.get("do_center_crop"):
        raise CheckpointError(f"the preprocessing of {folder.name!r} crops images, which mvde does not do for depth")
    resizes = bool(given.get("do_resize", True))
    keep_aspect = resizes and bool(given.get("keep_aspect_ratio", False))
    multiple = _whole(folder, "ensure_multiple_of", given.get("ensure_multiple_of", 1)) if resizes else 1
    mean, std, pixel_range = _normalisation(folder, defaults)
    interpolation = _interpolation(folder, given.get("resample", defaults.resample))
    is_bicubic = interpolation is Interpolation.BICUBIC
    record = PreprocessRecord(
        fit="letterbox" if keep_aspect else "stretch",
        multiple=multiple if keep_aspect else 1,
        interpolation=interpolation,
        antialias=defaults.antialias,
        padding=min(max(round(255 * sum(mean) / (3 * pixel_range)), 0), 255),
        mean=mean,
        std=std,
        pixel_range=pixel_range,
        colour="RGB",
        bicubic_coefficient=(-0.5 if defaults.antialias else -0.75) if is_bicubic else None,
        align_corners=defaults.align_corners,
    )
    return ProcessorFile(_size(folder, defaults) if resizes else None, keep_aspect, multiple, record)


def _check_type(folder: ModelFolder, defaults: ProcessorDefaults) -> None:
    given = folder.processor.get("image_processor_type") or folder.processor.get("feature_extractor_type")
    if given is None or not defaults.types:
        return
    stem = str(given)
    for suffix in ("Fast", "Pil"):
        stem = stem.removesuffix(suffix)
    stem = stem.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if stem not in defaults.types:
        raise CheckpointError(
            f"preprocessor_config.json of {folder.name!r} is that of {given}, but its model_type {folder.model_type!r} "
            f"uses {defaults.types[0]}ImageProcessor; copy the file from the model's page"
        )


def _normalisation(
    folder: ModelFolder, defaults: ProcessorDefaults
) -> tuple[tuple[float, float, float], tuple[float, float, float], float]:
    """Mean, deviation and the largest value of the pixels that they are for."""
    given = folder.processor
    pixel_range = 255.0
    if given.get("do_rescale", True):
        factor = given.get("rescale_factor", 1 / 255)
        if not _is_number(factor) or not factor > 0:
            raise CheckpointError(f"rescale_factor of {folder.name!r} must be a positive number, but got {factor!r}")
        pixel_range = round(255 * factor, 6)
    if not given.get("do_normalize", defaults.do_normalize):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pixel_range
    mean = _three(folder, "image_mean", given.get("image_mean") or defaults.mean)
    std = _three(folder, "image_std", given.get("image_std") or defaults.std)
    if min(std) <= 0:
        raise CheckpointError(f"image_std of {folder.name!r} must be positive, but got {std}")
    if max(mean) > pixel_range or (pixel_range > 2 and max(mean) <= 1 and max(std) <= 1):
        raise CheckpointError(
            f"preprocessor_config.json of {folder.name!r} contradicts itself: pixels are 0 to {pixel_range:g}, but "
            f"image_mean is {mean}"
        )
    return mean, std, pixel_range


def _interpolation(folder: ModelFolder, resample: Any) -> Interpolation:
    match resample:
        case 2:
            return Interpolation.BILINEAR
        case 3:
            return Interpolation.BICUBIC
    raise CheckpointError(
        f"the preprocessing of {folder.name!r} resamples with filter {resample!r}; mvde has bilinear ({_BILINEAR}) and "
        f"bicubic ({_BICUBIC})"
    )


def _size(folder: ModelFolder, defaults: ProcessorDefaults) -> tuple[int, int] | None:
    size = folder.processor.get("size", defaults.size)
    if size is None:
        return None
    if isinstance(size, Mapping):
        if not {"height", "width"} <= set(size):
            raise CheckpointError(
                f"size in preprocessor_config.json of {folder.name!r} must have height and width, but got {dict(size)}"
            )
        size = (size["height"], size["width"])
    elif isinstance(size, int):
        size = (size, size)
    height, width = (_whole(folder, "size", side) for side in size)
    return height, width


def _three(folder: ModelFolder, key: str, given: Any) -> tuple[float, float, float]:
    values = [given] * 3 if _is_number(given) else given
    if not isinstance(values, (list, tuple)) or len(values) != 3 or not all(map(_is_number, values)):
        raise CheckpointError(f"{key} of {folder.name!r} must be three numbers, but got {given!r}")
    red, green, blue = map(float, values)
    return red, green, blue


def _whole(folder: ModelFolder, key: str, given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given <= 1 << 16:
        raise CheckpointError(f"{key} of {folder.name!r} must be a positive whole number, but got {given!r}")
    return given


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
