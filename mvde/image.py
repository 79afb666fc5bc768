"""Pictures: reading files safely, and what an image in memory must be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.assets import sample_photos
from mvde.errors import DatasetError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 100_000_000  # a 100-megapixel camera; beyond that a file is a decompression bomb until proven otherwise
MIN_SIDE = 2  # a central difference needs two pixels
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


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


def read_photographs(folder: Path | None = None) -> list[NDArray[np.uint8]]:
    """RGB images (H, W, 3), uint8: the photographs under ``folder`` by name, by default those that ship.

    Raises :class:`DatasetError` where the folder has no image, :class:`ImageError` for one that cannot be read.
    """
    paths = sample_photos() if folder is None else sorted(path for path in folder.rglob("*") if is_image_path(path))
    if not paths:
        raise DatasetError(f"{folder} holds no image (.jpg, .png, …); name a folder of photographs")
    return [read_image(path) for path in paths]


def is_image_path(path: Path) -> bool:
    """Whether a file's suffix says that it is an image."""
    return path.suffix.lower() in _SUFFIXES


def check_image(image: Any) -> None:
    """Raise :class:`ImageError` unless ``image`` is an RGB array (H, W, 3), uint8, of at least 2×2 pixels.

    The error says how to convert what was given.
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
