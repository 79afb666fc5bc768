"""Images: the only reader of image files, and validation of images in memory."""

from __future__ import annotations

import json
import logging
import shlex
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvde.assets import sample_photos
from mvde.errors import DatasetError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 100_000_000  # a 100-megapixel camera; anything larger is treated as a decompression bomb
MIN_SIDE = 2  # a central difference needs two pixels
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
"""Formats that Pillow may detect, regardless of the suffix; JPEG includes MPO, a JPEG with further images."""
_FORMAT_NAMES = "JPEG, PNG, BMP, WebP, TIFF or PPM"

_ORIENTATION_TAG, _BITS_TAG, _SUBFILE_TAG = 0x0112, 258, 254
_REDUCED_OR_MASK = 1 | 4  # bits of TIFF's NewSubfileType: reduced-resolution copy, transparency mask

_LOG = logging.getLogger("mvde.image")
_said: set[str] = set()


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an RGB image (H, W, 3), uint8, from a JPEG, PNG, BMP, WebP, TIFF or PPM file, applying EXIF orientation.

    Greyscale, palette and CMYK images and opaque alpha channels are converted, and of a multi-camera file (MPO) the
    first image is read; each kind logs one warning to ``mvde.image``. Raises :class:`ImageError`, with a conversion
    command where possible, if the file is missing, truncated, not an image, larger than ``max_pixels``, animated,
    multi-page, transparent, or has more than 8 bits per channel.
    """
    path = Path(path)
    with _errors_that_name(path, max_pixels):
        _check_is_file(path)
        with path.open("rb") as stream:
            return _decode(stream, path, max_pixels)


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode the content of an image file as :func:`read_image` does; ``name`` is what errors call it."""
    path = Path(name)
    with _errors_that_name(path, max_pixels):
        return _decode(BytesIO(content), path, max_pixels)


def _decode(stream: Any, path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Read an image from a stream; ``path`` is its name."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # corrupt tags; the size is checked before decoding
        with Image.open(stream, formats=_FORMATS) as opened:
            _check_size(opened, path, max_pixels)
            _check_depth(opened, stream, path)
            _check_single(opened, path)
            opened.load()
            image = np.array(_upright(_rgb(opened, path), _orientation(opened, path)))
    if min(image.shape[:2]) < MIN_SIDE:
        height, width = image.shape[:2]
        raise ImageError(f"{path} has {height}x{width} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed")
    return image


def _check_is_file(path: Path) -> None:
    """Raise :class:`ImageError` for what is no regular file: opening a FIFO would block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError(f"cannot read the image {path}: it is not a regular file; give an image file")


def read_photographs(folder: Path | None = None) -> list[NDArray[np.uint8]]:
    """Read all photographs under ``folder`` in order of path, by default the bundled ones, as RGB (H, W, 3) uint8.

    Raises :class:`DatasetError` if the folder has no image, :class:`ImageError` for an unreadable one.
    """
    paths = sample_photos() if folder is None else sorted(path for path in folder.rglob("*") if is_image_path(path))
    if not paths:
        raise DatasetError(f"{folder} holds no image (.jpg, .png, …); name a folder of photographs")
    return [read_image(path) for path in paths]


def is_image_path(path: Path) -> bool:
    """Whether a path has the suffix of an image file."""
    return path.suffix.lower() in _SUFFIXES


def check_image(image: Any) -> None:
    """Raise :class:`ImageError` unless ``image`` is an RGB array (H, W, 3), uint8, of at least 2×2 pixels.

    The error says how to convert the input.
    """
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype is None:
        raise ImageError(f"an image is a NumPy array (H, W, 3) of dtype uint8, but got {type(image).__name__}")
    if isinstance(image, np.ma.MaskedArray):
        raise ImageError(
            "the image is a masked array, but the network needs every pixel; fill the masked ones, e.g. image.filled(0)"
        )
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


@contextmanager
def _errors_that_name(path: Path, max_pixels: int) -> Iterator[None]:
    """Convert any error from reading the file to an :class:`ImageError` that names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {path}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"cannot read the image {path}: its content is not a {_FORMAT_NAMES} image; is it complete? If it has "
            "another format, convert it first"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, f"more than the allowed {max_pixels} pixels") from error
    except Exception as error:  # Pillow raises arbitrary exceptions for corrupt files
        strerror = error.strerror if isinstance(error, OSError) and error.errno else None
        reason = strerror or f"{' '.join(str(error).split()) or type(error).__name__}; is it complete?"
        raise ImageError(f"cannot read the image {path}: {reason}") from error


def _too_large(path: Path, size: str) -> ImageError:
    return ImageError(f"{path} has {size}; if that is its real size, shrink it first")


def _check_size(opened: Any, path: Path, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise _too_large(path, f"{height}x{width} pixels, more than the allowed {max_pixels}")


def _check_depth(opened: Any, stream: Any, path: Path) -> None:
    """Raise :class:`ImageError` for more than 8 bits per channel, which Pillow truncates to 8 in colour images."""
    bits = _bits(opened, stream)
    if opened.mode == "F":
        kind, how = "floating-point", "convert it first (this takes values of 0 to 1)"
        pixels = "Image.fromarray((np.asarray(im).clip(0, 1) * 255).round().astype(np.uint8))"
    elif opened.mode == "I" and opened.format == "TIFF":
        raise ImageError(f"{path} is a 32-bit integer image, but 8-bit RGB is expected; scale it to 8 bits first")
    elif opened.mode.startswith("I"):
        kind, how = "16-bit grey", "convert it first"
        pixels = "Image.fromarray((np.asarray(im) / 257).round().astype(np.uint8))"
    elif bits > 8:
        kind, how, pixels = f"{bits}-bit {opened.mode}", "take the upper 8 bits of each channel first", "im"
    else:
        return
    code = (
        f"import numpy as np; {_opening(path)}; {pixels}.convert({_quoted('RGB')}).save({_beside(path, '-8bit.png')})"
    )
    raise ImageError(f"{path} is a {kind} image, but 8-bit RGB is expected; {how}: {_python(code)}")


def _opening(path: Path) -> str:
    return f"from PIL import Image, ImageOps; im = ImageOps.exif_transpose(Image.open({_quoted(str(path))}))"


def _beside(path: Path, ending: str) -> str:
    return _quoted(str(path.with_name(f"{path.stem}{ending}")))


def _quoted(text: str) -> str:
    """Python literal of the text in double quotes, readable within single shell quotes."""
    return json.dumps(text, ensure_ascii=False)


def _python(code: str) -> str:
    """Command line that runs ``code``, for a POSIX shell."""
    return f"python -c {shlex.quote(code)}"


def _bits(opened: Any, stream: Any) -> int:
    """Bits per channel from the file header; Pillow's mode does not tell."""
    if opened.format == "TIFF":
        return max(map(int, opened.tag_v2.get(_BITS_TAG, (8,))))
    place = stream.tell()
    try:
        stream.seek(0)
        head: bytes = stream.read(1024)
    finally:
        stream.seek(place)
    if opened.format == "PNG":
        if head[12:16] != b"IHDR":
            raise ValueError("its first chunk is not the header")
        return int(head[24])
    if opened.format == "PPM" and head[:2] in (b"P3", b"P6"):
        words = [word for line in head.split(b"\n") for word in line.split(b"#")[0].split()]
        return int(words[3]).bit_length()
    return 8


def _check_single(opened: Any, path: Path) -> None:
    """Raise :class:`ImageError` for an animation or several pages, where the choice would be ambiguous."""
    if opened.format == "MPO":
        _say_once(path, "holds several images (MPO); only the first is read")
        return
    if not _has_more(opened):
        return
    frames = "pages" if opened.format == "TIFF" else "frames of an animation"
    stem = str(path.with_suffix("")).replace("{", "{{").replace("}", "}}")
    code = (
        f"from PIL import Image, ImageSequence; im = Image.open({_quoted(str(path))}); "
        f"[frame.convert({_quoted('RGB')}).save(f{_quoted(stem + '-{i:04d}.png')}) "
        "for i, frame in enumerate(ImageSequence.Iterator(im))]"
    )
    raise ImageError(
        f"{path} holds several {frames}, but one image is expected; split it into files first: {_python(code)}"
    )


def _has_more(opened: Any) -> bool:
    """Whether the file holds further images, not counting reduced copies and masks of a TIFF file."""
    if opened.format != "TIFF":
        return int(getattr(opened, "n_frames", 1)) > 1
    page = 0
    try:
        while True:
            page += 1
            opened.seek(page)
            if not int(opened.tag_v2.get(_SUBFILE_TAG, 0)) & _REDUCED_OR_MASK:
                return True
    except EOFError:
        return False
    finally:
        opened.seek(0)


def _orientation(opened: Any, path: Path) -> int:
    """EXIF orientation, 1 to 8; 1 if it is absent, out of range or unreadable."""
    try:
        value = opened.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - Pillow raises arbitrary exceptions for corrupt tags
        _say_once(path, "has unreadable EXIF tags; the orientation is ignored")
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Any, orientation: int) -> Any:
    """Apply the EXIF orientation."""
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _rgb(opened: Any, path: Path) -> Any:
    """Convert to RGB where that is unambiguous."""
    mode: str = opened.mode
    if "transparency" in opened.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _without_alpha(opened, path)
    match mode:
        case "RGB":
            return opened
        case "L" | "1":
            _say_once(path, "is greyscale; its channel is repeated to RGB")
        case "P":
            _say_once(path, "has a palette; its colours are converted to RGB")
        case "CMYK":
            return _from_cmyk(opened, path)
        case "RGBX" | "YCbCr":
            pass
        case _:
            raise ImageError(f"{path} is a {mode} image, but 8-bit RGB is expected; convert it to sRGB first")
    return opened.convert("RGB")


def _without_alpha(opened: Any, path: Path) -> Any:
    rgba = opened.convert("RGBA")
    if rgba.getextrema()[3][0] < 255:
        code = (
            f"{_opening(path)}.convert({_quoted('RGBA')}); white = Image.new(im.mode, im.size, {_quoted('white')}); "
            f"Image.alpha_composite(white, im).convert({_quoted('RGB')}).save({_beside(path, '-rgb.png')})"
        )
        raise ImageError(
            f"{path} is partly transparent ({opened.mode}), but 8-bit RGB is expected; put it on a background first, "
            f"e.g. white: {_python(code)}"
        )
    if opened.mode != "RGB":  # otherwise a transparent colour that no pixel uses
        _say_once(path, "has a fully opaque alpha channel, which is dropped")
    return rgba.convert("RGB")


def _from_cmyk(opened: Any, path: Path) -> Any:
    """Convert to RGB by the embedded colour profile, or else as (255 - C) (255 - K) / 255 and so on."""
    from PIL import ImageCms

    profile = opened.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(opened, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImportError, OSError, ValueError, TypeError, ImageCms.PyCMSError):
            pass  # Pillow without LittleCMS, or a profile that is corrupt or of another colour space
        else:
            _say_once(path, "is CMYK; it is converted to sRGB by its embedded colour profile")
            return converted
    _say_once(path, "is CMYK without a usable colour profile; it is read as R = (255 - C)(255 - K)/255, …")
    return opened.convert("RGB")


def _say_once(path: Path, what: str) -> None:
    """Log a warning for the first image of a kind; later ones are silent."""
    if what not in _said:
        _said.add(what)
        _LOG.warning("%s %s", path, what)
