"""Placement of an image in the model's input, and the inverse mapping of depth to the image's resolution.

NumPy and Pillow are imported lazily: the command line lists :class:`Fit` without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mvde.contract import Interpolation
from mvde.errors import UsageError
from mvde.resampling import DEFAULT_RESAMPLING, Resampling, resample, resample_depth, resize_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Fit(str, Enum):
    """How an image is fitted into the model's input."""

    STRETCH = "stretch"
    """Fill the input, changing the aspect ratio."""
    LETTERBOX = "letterbox"
    """Keep the whole image, leaving bars."""
    CROP = "crop"
    """Fill the input with the centre of the image."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an (H, W) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Placement:
    """Mapping of ``source_box`` in the image to ``target_box`` in the model's input; sizes are (height, width).

    ``resampling`` says how pixels are computed, and what surrounds ``target_box``.
    """

    source_size: tuple[int, int]
    source_box: Box
    target_size: tuple[int, int]
    target_box: Box
    resampling: Resampling = DEFAULT_RESAMPLING


def check_fit(text: Fit | str) -> Fit:
    """Parse a :class:`Fit`. Raises :class:`UsageError` for an unknown name."""
    try:
        return Fit(text)
    except ValueError as error:
        raise UsageError(f"fit {text!r} is not known; expected one of {', '.join(Fit)}") from error


def place(
    source_size: tuple[int, int],
    target_size: tuple[int, int],
    fit: Fit | str,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Placement:
    """Compute the placement of an image of ``source_size`` (H, W) in an input of ``target_size`` (H, W).

    With ``"letterbox"`` the sides of the target box are rounded to ``resampling.multiple`` pixels each, as the
    processors of keep-aspect models do: 1080x1920 fills an input of 518x924 with a multiple of 14.

    Raises :class:`UsageError` for an unknown ``fit``, and for a letterbox in a target whose sides are no multiples.
    """
    whole_source, whole_target = _whole(source_size), _whole(target_size)
    ratios = [target / source for target, source in zip(target_size, source_size, strict=True)]
    match check_fit(fit):
        case Fit.STRETCH:
            return Placement(source_size, whole_source, target_size, whole_target, resampling)
        case Fit.LETTERBOX:
            _check_multiple(target_size, resampling.multiple)
            scale = min(ratios)
            inner = _centred(target_size, [side * scale for side in source_size], resampling.multiple)
            return Placement(source_size, whole_source, target_size, inner, resampling)
        case Fit.CROP:
            scale = max(ratios)
            inner = _centred(source_size, [side / scale for side in target_size])
            return Placement(source_size, inner, target_size, whole_target, resampling)


def fit_image(image: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3), uint8 RGB, to the model's resolution, as the placement's resampling says."""
    import numpy as np

    box = placement.source_box
    is_whole = box == _whole(placement.source_size) and not has_bars(placement)
    if placement.source_size == placement.target_size and is_whole:
        return np.ascontiguousarray(image)
    resized = _resized(image[box.slices], placement.target_box.size, placement.resampling)
    if not has_bars(placement):
        return resized
    canvas = np.full((*placement.target_size, 3), placement.resampling.padding, np.uint8)
    canvas[placement.target_box.slices] = resized
    return canvas


def fitted(
    images: Sequence[NDArray[np.uint8]],
    resolution: tuple[int, int],
    fit: Fit | str,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> NDArray[np.uint8]:
    """Resize images (H, W, 3), uint8 RGB, to ``resolution`` (H, W) and stack them to (K, H, W, 3), uint8."""
    import numpy as np

    placements = [place((image.shape[0], image.shape[1]), resolution, fit, resampling) for image in images]
    return np.stack([fit_image(image, placement) for image, placement in zip(images, placements, strict=True)])


def has_bars(placement: Placement) -> bool:
    """Whether the placement leaves bars in the model's input."""
    return placement.target_box != _whole(placement.target_size)


def clear_bars(depth: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Set depth (H, W) in the bars to NaN, to exclude them from the statistics."""
    import numpy as np

    if not has_bars(placement):
        return depth
    cleared = np.full_like(depth, math.nan)
    cleared[placement.target_box.slices] = depth[placement.target_box.slices]
    return cleared


def depth_to_source(depth: NDArray[np.float32], placement: Placement, invalid: float = math.nan) -> NDArray[np.float32]:
    """Return depth (H, W), float32, at the image's resolution; ``invalid`` (NaN or 0) outside the model's view.

    Bilinear over the neighbours that have depth, as in :func:`mvde.resampling.resample_depth`.
    """
    import numpy as np

    inner, box = np.asarray(depth[placement.target_box.slices], np.float32), placement.source_box
    resized = resample_depth(inner, box.size, invalid)
    if box == _whole(placement.source_size):
        return resized
    whole = np.full(placement.source_size, invalid, np.float32)
    whole[box.slices] = resized
    return whole


def _whole(size: tuple[int, int]) -> Box:
    return Box(0, 0, *size)


def _centred(outer: tuple[int, int], inner: list[float], multiple: int = 1) -> Box:
    """Centred box of ``inner`` size in ``outer``, rounded to a multiple of whole pixels, at least one."""
    sides = [round(side / multiple) * multiple for side in inner]
    height, width = (min(max(side, multiple), most) for side, most in zip(sides, outer, strict=True))
    top, left = math.floor((outer[0] - height) / 2), math.floor((outer[1] - width) / 2)
    return Box(top, left, top + height, left + width)


def _check_multiple(target_size: tuple[int, int], multiple: int) -> None:
    height, width = target_size
    if height % multiple or width % multiple:
        raise UsageError(
            f"a letterbox with sides of multiples of {multiple} pixels does not fit into {height}x{width}, whose sides "
            "are no multiples; use stretch or crop"
        )


def _resized(image: NDArray[np.uint8], size: tuple[int, int], resampling: Resampling) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3), uint8, to ``size`` (H, W): along x, then along y."""
    import numpy as np
    from PIL import Image

    height, width = size
    if not resampling.is_pillows:
        across = resample(image, resize_table(image.shape[1], width, resampling), axis=1)
        return resample(across, resize_table(image.shape[0], height, resampling), axis=0)
    is_bicubic = resampling.interpolation is Interpolation.BICUBIC
    kernel = Image.Resampling.BICUBIC if is_bicubic else Image.Resampling.BILINEAR
    # Horizontal pass first, as in libmvde and the CUDA kernel: Pillow's order depends on sizes and version, and each
    # pass rounds to bytes.
    row_by_row = Image.fromarray(image).resize((width, image.shape[0]), kernel)
    return np.asarray(row_by_row.resize((width, height), kernel))
