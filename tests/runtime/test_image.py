"""Reading images safely, and the map into the model's resolution and back."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvde.errors import ImageError, UsageError
from mvde.runtime.image import check_fit, check_image, clear_bars, depth_to_source, fit_image, place, read_image

FITS = ("stretch", "letterbox", "crop")


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


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "grey"), ("RGBA", "RGBA"), ("I;16", "16-bit grey"), ("P", "palette"), ("CMYK", "CMYK")]
)
def test_files_that_are_not_rgb_are_refused_with_the_way_out(tmp_path: Path, mode: str, kind: str) -> None:
    suffix = ".jpg" if mode == "CMYK" else ".png"
    Image.new(mode, (8, 8)).save(tmp_path / f"a{suffix}")
    with pytest.raises(ImageError, match=rf"is a {kind} image, but 8-bit RGB is expected; convert it first"):
        read_image(tmp_path / f"a{suffix}")


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
    with pytest.raises(ImageError, match="cannot read the image"):
        read_image(tmp_path)


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
        ([[1, 2], [3, 4]], "NumPy array"),
    ],
)
def test_arrays_that_are_not_rgb_are_refused_with_the_way_out(image: np.ndarray, way_out: str) -> None:
    with pytest.raises(ImageError, match=way_out):
        check_image(image)


def test_an_unknown_fit_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="one of stretch, letterbox, crop"):
        check_fit("fill")


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_models_size_is_untouched(fit: str) -> None:
    image = _photo()
    placement = place((40, 60), (40, 60), fit)  # type: ignore[arg-type]
    np.testing.assert_array_equal(fit_image(image, placement), image)
    depth = np.arange(2400, dtype=np.float32).reshape(40, 60)
    np.testing.assert_array_equal(depth_to_source(depth, placement), depth)


def test_stretch_is_pillows_antialiased_bilinear() -> None:
    image = _photo(100, 80)
    expected = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(fit_image(image, place((100, 80), (32, 48), "stretch")), expected)


def test_letterbox_keeps_the_aspect_ratio_and_centres() -> None:
    placement = place((100, 200), (64, 64), "letterbox")
    box = placement.target_box
    assert (box.top, box.left, box.bottom, box.right) == (16, 0, 48, 64)
    fitted = fit_image(np.full((100, 200, 3), 7, np.uint8), placement)
    assert (fitted[box.slices] == 7).all()
    assert (fitted[:16] == 128).all()
    assert (fitted[48:] == 128).all()


def test_crop_takes_the_middle() -> None:
    placement = place((100, 200), (64, 64), "crop")
    box = placement.source_box
    assert (box.top, box.left, box.bottom, box.right) == (0, 50, 100, 150)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", [(480, 640), (33, 517), (2, 2), (1080, 1920), (64, 48)])
def test_a_plane_of_depth_comes_back_in_place(fit: str, source: tuple[int, int]) -> None:
    """Depth that is linear across the model's input is linear across the same pixels of the image."""
    target = (48, 64)
    placement = place(source, target, fit)  # type: ignore[arg-type]
    rows = np.linspace(1.0, 2.0, target[0], dtype=np.float32)[:, None]
    depth = depth_to_source(rows.repeat(target[1], 1), placement)
    assert depth.shape == source
    assert depth.dtype == np.float32
    box, inner = placement.source_box, placement.target_box
    outside = np.ones(source, bool)
    outside[box.slices] = False
    assert (depth[outside] == 0).all()
    # Pixel centres: y of the image ↔ (y + ½) · scale − ½ of the input.
    y = (np.arange(box.size[0]) + 0.5) * inner.size[0] / box.size[0] - 0.5 + inner.top
    expected = np.interp(y, np.arange(target[0]), rows[:, 0])
    edge = max(1, round(box.size[0] / inner.size[0]) + 1)  # a border is replicated instead of continued
    middle = slice(edge, max(box.size[0] - edge, edge))
    np.testing.assert_allclose(depth[box.slices][middle].mean(1), expected[middle], atol=2e-3)


def test_bars_have_no_depth() -> None:
    placement = place((100, 200), (64, 64), "letterbox")
    cleared = clear_bars(np.ones((64, 64), np.float32), placement)
    assert cleared.sum() == 32 * 64
    assert (cleared[placement.target_box.slices] == 1).all()
