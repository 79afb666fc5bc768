"""Reading images safely, and validation of image arrays."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.errors import DatasetError, ImageError
from mvde.image import check_image, read_image, read_photographs


def _photo(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    Image.fromarray(_photo()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), _photo())


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to view"
    Image.fromarray(_photo()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(_photo(), -1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no image .*nowhere\.png"):
        read_image(tmp_path / "nowhere.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(_photo(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ImageError, match=r"cannot read the image .*a\.(png|jpg).*is it complete"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"cannot read the image .*a\.png"):
        read_image(tmp_path / "a.png")


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read the image .*not a regular file"):
        read_image(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: it is not a regular file"):
        read_image(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.png has more than the allowed 100000000 pixels.*shrink it first"):
        read_image(tmp_path / "bomb.png")


def test_a_one_pixel_file_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png has 1x1 pixels; at least 2x2"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("image", "way_out"),
    [
        (np.zeros((4, 4), np.uint8), "np.repeat"),
        (np.zeros((4, 4, 1), np.uint8), "np.repeat"),
        (np.zeros((4, 4, 4), np.uint8), r"image\[\.\.\., :3\]"),
        (np.zeros((3, 4, 4), np.uint8), "drop it|channels last"),
        (np.zeros((4, 4, 3), np.uint16), ">> 8"),
        (np.zeros((4, 4, 3), np.float32), r"\* 255"),
        (np.zeros((1, 1, 3), np.uint8), "at least 2x2"),
        (np.ma.masked_greater(np.zeros((4, 4, 3), np.uint8), 9), r"masked array.*image\.filled"),
        ([[1, 2], [3, 4]], "NumPy array"),
    ],
)
def test_arrays_that_are_not_rgb_are_refused_with_the_way_out(image: np.ndarray, way_out: str) -> None:
    with pytest.raises(ImageError, match=way_out):
        check_image(image)


def test_photographs_of_a_folder_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name, height in (("b.png", 4), ("deeper/c.png", 6), ("a.jpg", 2)):
        Image.fromarray(_photo(height, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [image.shape[0] for image in read_photographs(tmp_path)] == [2, 4, 6]


def test_without_a_folder_the_photographs_that_ship_are_read() -> None:
    images = read_photographs()
    assert len(images) == 6
    assert all(image.ndim == 3 and image.dtype == np.uint8 for image in images)


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no image .*name a folder of photographs"):
        read_photographs(tmp_path)
