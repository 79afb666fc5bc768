"""Readers of single data set files; errors name the file."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvde.errors import DatasetError, ImageError, MissingDependencyError
from mvde.image import decode_image, read_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
NPY_MAGIC = b"\x93NUMPY"
MILLIMETRES = 1000.0
"""Stored value of one metre in depth maps of whole numbers."""


def require_directory(path: Path, what: str) -> Path:
    """Return ``path`` if it is a folder. Raises DatasetError saying that ``what`` is expected there."""
    if not path.is_dir():
        raise DatasetError(f"{path} is not a folder; expected {what} there")
    return path


def require_file(path: Path, what: str) -> Path:
    """Return ``path`` if it is a file. Raises DatasetError saying that ``what`` is missing."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing; expected {what} there")
    return path


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an upright uint8 RGB picture (H, W, 3) with :func:`mvde.image.read_image`. Raises DatasetError."""
    try:
        return read_image(path)
    except ImageError as error:
        raise DatasetError(str(error)) from error


def decode_rgb(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of a picture as :func:`read_rgb` does; ``name`` is what errors call it. Raises DatasetError."""
    try:
        return decode_image(content, name)
    except ImageError as error:
        raise DatasetError(str(error)) from error


def read_depth_png(path: Path, units_per_metre: float) -> NDArray[np.float32]:
    """Read depth (H, W) float32 in metres from a 16-bit grey PNG; 0 stays 0 (unknown)."""
    return _png_depth(_open_png(require_file(path, "a depth map"), path), path, units_per_metre)


def read_depth(path: Path, units_per_metre: float | None) -> NDArray[np.float32]:
    """Read depth (H, W) float32 in metres from a 16-bit grey PNG or an ``.npy`` file; unknown stays 0 or NaN.

    ``units_per_metre`` is the stored value of one metre; default: 1000 (millimetres) for whole numbers, else 1.
    """
    if path.suffix != ".npy":
        return read_depth_png(path, units_per_metre or MILLIMETRES)
    return _array_depth(read_array(path), path, units_per_metre)


def decode_depth(content: bytes, name: str, units_per_metre: float | None) -> NDArray[np.float32]:
    """Decode depth as :func:`read_depth` does from the bytes of such a file, told apart by their first ones."""
    if not content.startswith(NPY_MAGIC):
        return _png_depth(_open_png(BytesIO(content), name), name, units_per_metre or MILLIMETRES)
    return _array_depth(_array_of(BytesIO(content), name), name, units_per_metre)


def _png_depth(image: Image.Image, name: Path | str, units_per_metre: float) -> NDArray[np.float32]:
    if image.mode not in ("I;16", "I;16B", "I"):
        raise DatasetError(f"{name} is not a 16-bit grey PNG (mode {image.mode}), so it cannot hold depth")
    return np.asarray(image).astype(np.float32) / np.float32(units_per_metre)


def _array_depth(array: NDArray[Any], name: Path | str, units_per_metre: float | None) -> NDArray[np.float32]:
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DatasetError(f"{name} has shape {array.shape} and type {array.dtype}; expected numbers (H, W)")
    of_type = 1.0 if array.dtype.kind == "f" else MILLIMETRES
    return array.astype(np.float32) / np.float32(of_type if units_per_metre is None else units_per_metre)


def read_array(path: Path) -> NDArray[Any]:
    """Read the array of an ``.npy`` file; pickled objects are rejected."""
    return _array_of(require_file(path, "an .npy array"), path)


def _array_of(source: Path | BytesIO, name: Path | str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(source, allow_pickle=False)
    except Exception as error:  # a damaged header may request any amount of memory, or the file be an archive
        raise DatasetError(f"{name} is not a readable .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{name} is an archive of arrays; expected a single .npy array")
    return array


def open_hdf5(path: Path) -> Any:
    """Open an ``h5py.File`` for reading."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError.for_extra("h5py", "train", "reading HDF5 data sets") from error
    require_file(path, "an HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is not a complete HDF5 file: {error}") from error


def check_same_size(rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], rgb_name: object, depth_name: object) -> None:
    """Raise :class:`DatasetError`, naming both files, unless picture and depth have the same height and width."""
    if rgb.shape[:2] != depth_m.shape:
        is_turned = rgb.shape[1::-1] == depth_m.shape
        hint = "; if its orientation tag (EXIF) is wrong for this depth, remove the tag" if is_turned else ""
        raise DatasetError(
            f"{depth_name} is {depth_m.shape} (H, W), but its picture {rgb_name} is {rgb.shape[:2]}{hint}"
        )


def _open_png(source: Path | BytesIO, name: Path | str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=("PNG",)) as image:
                image.load()
                return image
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises arbitrary exceptions on damaged files
        raise DatasetError(f"{name} is not a readable PNG: {error}") from error
