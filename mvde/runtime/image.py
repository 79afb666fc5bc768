"""Images: reading files safely, fitting an image into the model's resolution, mapping depth back to its pixels."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from mvde.errors import ImageError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fit = Literal["stretch", "letterbox", "crop"]

MAX_PIXELS = 100_000_000  # a 100-megapixel camera; beyond that a file is a decompression bomb until proven otherwise
MIN_SIDE = 2  # a central difference needs two pixels
LETTERBOX_GREY = 128  # the middle of SigLIP's normalised range, which is what its padding would be
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


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
    """Where an image went: ``source_box`` of the image was resized onto ``target_box`` of the model's input."""

    source_size: tuple[int, int]
    source_box: Box
    target_size: tuple[int, int]
    target_box: Box


def check_image(image: Any) -> None:
    """Nothing, if ``image`` is an RGB array (H, W, 3), uint8, at least 2×2.

    Raises :class:`ImageError` that says how to convert what was given.
    """
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype is None:
        raise ImageError(f"an image is a NumPy array (H, W, 3) of dtype uint8, but got {type(image).__name__}")
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        raise ImageError(
            f"the image is grey (shape {shape}), but RGB (H, W, 3) is expected; "
            "repeat the channel: np.repeat(image.reshape(H, W, 1), 3, axis=2)"
        )
    if len(shape) == 3 and shape[2] == 4:
        raise ImageError(f"the image has an alpha channel (shape {shape}); drop it: image[..., :3]")
    if len(shape) != 3 or shape[2] != 3:
        raise ImageError(f"the image has shape {shape}, but RGB (H, W, 3) is expected (channels last)")
    if dtype != np.uint8:
        way_out = "(image >> 8).astype('uint8')" if dtype == np.uint16 else "(image * 255).round().astype('uint8')"
        raise ImageError(f"the image has dtype {dtype}, but uint8 (0 to 255) is expected; convert it, e.g. {way_out}")
    if min(shape[:2]) < MIN_SIDE:
        raise ImageError(f"the image has {shape[0]}x{shape[1]} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed")


def check_fit(text: str) -> Fit:
    """The text as a :data:`Fit`. Raises :class:`UsageError` where it is none."""
    for fit in get_args(Fit):
        if text == fit:
            return fit  # type: ignore[no-any-return]
    raise UsageError(f"fit {text!r} is not known; expected one of {', '.join(get_args(Fit))}")


def place(source_size: tuple[int, int], target_size: tuple[int, int], fit: Fit) -> Placement:
    """Where an image of ``source_size`` (H, W) goes in an input of ``target_size``.

    ``"stretch"`` fills it and changes the aspect ratio, ``"letterbox"`` keeps the whole image and leaves bars,
    ``"crop"`` fills it with the middle of the image. Raises :class:`UsageError` for another ``fit``.
    """
    check_fit(fit)
    whole_source, whole_target = _whole(source_size), _whole(target_size)
    ratios = [target / source for target, source in zip(target_size, source_size, strict=True)]
    if fit == "letterbox":
        scale = min(ratios)
        inner = _centred(target_size, [side * scale for side in source_size])
        return Placement(source_size, whole_source, target_size, inner)
    if fit == "crop":
        scale = max(ratios)
        inner = _centred(source_size, [side / scale for side in target_size])
        return Placement(source_size, inner, target_size, whole_target)
    return Placement(source_size, whole_source, target_size, whole_target)


def fit_image(image: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """The image (H, W, 3), uint8 RGB, at the model's resolution; bilinear, anti-aliased where it shrinks."""
    from PIL import Image

    box, (height, width) = placement.source_box, placement.target_box.size
    if placement.source_size == placement.target_size == (height, width) and box == _whole(placement.source_size):
        return np.ascontiguousarray(image)
    # Across first, as libmvde and the CUDA kernel do: Pillow alone chooses the order by the sizes and its version, and
    # each pass rounds to bytes.
    across = Image.fromarray(image[box.slices]).resize((width, box.size[0]), Image.Resampling.BILINEAR)
    resized = across.resize((width, height), Image.Resampling.BILINEAR)
    if not has_bars(placement):
        return np.asarray(resized)
    canvas = np.full((*placement.target_size, 3), LETTERBOX_GREY, np.uint8)
    canvas[placement.target_box.slices] = np.asarray(resized)
    return canvas


def has_bars(placement: Placement) -> bool:
    """Whether the image leaves bars in the model's input."""
    return placement.target_box != _whole(placement.target_size)


def clear_bars(depth: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Depth (H, W) at the model's resolution with 0 (invalid) outside the image, so that bars have no statistics."""
    if not has_bars(placement):
        return depth
    cleared = np.zeros_like(depth)
    cleared[placement.target_box.slices] = depth[placement.target_box.slices]
    return cleared


def depth_to_source(depth: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Depth (H, W), float32, at the image's own pixels, bilinear; 0 (invalid) where the model did not see the image."""
    from PIL import Image

    inner, box = depth[placement.target_box.slices], placement.source_box
    if inner.shape == box.size:
        resized = np.array(inner, dtype=np.float32)
    else:
        height, width = box.size
        # Pillow clips nothing in mode F, and bilinear weights are a convex combination: depths stay in their range.
        source = Image.fromarray(np.ascontiguousarray(inner, dtype=np.float32))
        resized = np.array(source.resize((width, height), Image.Resampling.BILINEAR))
    if box == _whole(placement.source_size):
        return resized
    whole = np.zeros(placement.source_size, np.float32)
    whole[box.slices] = resized
    return whole


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """RGB image (H, W, 3), uint8, from a file, turned upright by its EXIF orientation.

    Raises :class:`ImageError` if the file is missing, truncated, no image, larger than ``max_pixels`` or not
    8-bit RGB.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # bounded below, before any decoding
            with Image.open(path) as opened:
                _check_file(opened, path, max_pixels)
                upright = ImageOps.exif_transpose(opened)
                image = np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {path}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} has more than the allowed {max_pixels} pixels; if it is what it claims to be, shrink it first"
        ) from error
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
        reason = "it is not an image of a known format" if "cannot identify" in str(error) else str(error)
        raise ImageError(f"cannot read the image {path}: {' '.join(reason.split())}; is it complete?") from error
    if min(image.shape[:2]) < MIN_SIDE:
        height, width = image.shape[:2]
        raise ImageError(f"{path} has {height}x{width} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed")
    return image


def is_image_path(path: Path) -> bool:
    """Whether a file's suffix says that it is an image."""
    return path.suffix.lower() in _SUFFIXES


def _check_file(opened: Any, path: Path, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path} has {height}x{width} pixels, more than the allowed {max_pixels}; "
            "if it is what it claims to be, shrink it first"
        )
    if opened.mode != "RGB":
        kinds = {"L": "grey", "LA": "grey with alpha", "RGBA": "RGBA", "P": "palette", "1": "black and white"}
        kind = "16-bit grey" if opened.mode.startswith("I") else kinds.get(opened.mode, opened.mode)
        raise ImageError(
            f"{path} is a {kind} image, but 8-bit RGB is expected; convert it first, e.g. "
            f"python -c \"from PIL import Image; Image.open('{path}').convert('RGB').save('rgb.png')\""
        )


def _whole(size: tuple[int, int]) -> Box:
    return Box(0, 0, *size)


def _centred(outer: tuple[int, int], inner: list[float]) -> Box:
    """Box of about ``inner`` size in the middle of ``outer``, in whole pixels, at least one."""
    height, width = (min(max(round(side), 1), most) for side, most in zip(inner, outer, strict=True))
    top, left = math.floor((outer[0] - height) / 2), math.floor((outer[1] - width) / 2)
    return Box(top, left, top + height, left + width)
