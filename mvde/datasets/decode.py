"""Reading single files of data sets, with errors that name the file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvde.errors import DatasetError, ImageError, MissingDependencyError
from mvde.image import read_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def require_directory(path: Path, what: str) -> Path:
    """The same path, if it is a folder; DatasetError says that ``what`` is expected there."""
    if not path.is_dir():
        raise DatasetError(f"{path} is not a folder; expected {what} there")
    return path


def require_file(path: Path, what: str) -> Path:
    """The same path, if it is a file; DatasetError says that ``what`` is missing."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing; expected {what} there")
    return path


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Picture (H, W, 3) uint8 RGB, upright, by the rules of :func:`mvde.image.read_image`; else DatasetError."""
    try:
        return read_image(path)
    except ImageError as error:
        raise DatasetError(str(error)) from error


def read_depth_png(path: Path, units_per_metre: float) -> NDArray[np.float32]:
    """Depth (H, W) float32 metres of a 16-bit grey PNG, as it is stored; 0 where it holds 0."""
    image = _open_png(path)
    if image.mode not in ("I;16", "I;16B", "I"):
        raise DatasetError(f"{path} is not a 16-bit grey PNG (mode {image.mode}), so it cannot hold depth")
    return np.asarray(image).astype(np.float32) / np.float32(units_per_metre)


def read_array(path: Path) -> NDArray[Any]:
    """Array of an ``.npy`` file; pickled objects are refused."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} is not a readable .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path} is an archive of arrays; expected a single .npy array")
    return array


def open_hdf5(path: Path) -> Any:
    """Open ``h5py.File`` for reading."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError.for_extra("h5py", "train", "reading HDF5 data sets") from error
    require_file(path, "an HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is not a whole HDF5 file: {error}") from error


def check_same_size(rgb: NDArray[np.uint8], depth_m: NDArray[np.float32], rgb_name: object, depth_name: object) -> None:
    """Raise :class:`DatasetError`, naming both, unless picture and depth have the same height and width."""
    if rgb.shape[:2] != depth_m.shape:
        is_turned = rgb.shape[1::-1] == depth_m.shape
        hint = "; if its orientation tag (EXIF) is wrong for this depth, remove the tag" if is_turned else ""
        raise DatasetError(
            f"{depth_name} is {depth_m.shape} (H, W), but its picture {rgb_name} is {rgb.shape[:2]}{hint}"
        )


def _open_png(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(require_file(path, "a depth map"), formats=("PNG",)) as image:
                image.load()
                return image
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise DatasetError(f"{path} is not a readable PNG: {error}") from error
