"""Real-world image files: orientation, bit depth, colour modes, animation, and damage that makes Pillow raise."""

from __future__ import annotations

import logging
import re
import shlex
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin

from mvde import image as image_module
from mvde.errors import ImageError
from mvde.image import read_image

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_said", set())


def _photo(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def _png16(colour_type: int, channels: np.ndarray) -> bytes:
    """PNG file with 16 bits per channel from (H, W, C) uint16; Pillow cannot write it in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = channels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _tiff_rgb16(channels: np.ndarray) -> bytes:
    """Single-strip TIFF file with 16 bits per channel."""
    height, width = channels.shape[:2]
    pixels = channels.astype("<u2").tobytes()
    after = 8 + 2 + 10 * 12 + 4
    rows = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, after),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, after + 6),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
        (284, 3, 1, 1),
    ]
    table = struct.pack("<H", 10) + b"".join(struct.pack("<HHII", *row) for row in rows) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + table + struct.pack("<3H", 16, 16, 16) + pixels


def _run_printed_command(error: ImageError, folder: Path) -> None:
    """Run the ``python -c …`` at the end of the message in a shell."""
    command = str(error)[str(error).index("python -c ") :]
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], cwd=folder, check=True, timeout=60)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))])
def test_every_format_is_turned_upright(tmp_path: Path, suffix: str, orientation: int, turn: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(_photo()).save(tmp_path / f"a{suffix}", exif=exif, **options)
    upright = turn(_photo()).astype(int)  # type: ignore[operator]
    got = read_image(tmp_path / f"a{suffix}")
    assert got.shape == upright.shape
    assert np.abs(got - upright).max() <= (8 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("name", ["srat_m1_0.jpg", "float_tag.jpg", "crash_0.jpg"])
def test_exif_that_cannot_be_written_back_does_not_matter(name: str) -> None:
    with Image.open(DATA / name) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(read_image(DATA / name), np.rot90(expected, -1))  # all have orientation 6


def test_a_file_of_another_format_is_refused_whatever_its_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"avif_named_png\.png: its content is not a JPEG, PNG, .* image"):
        read_image(DATA / "avif_named_png.png")
    Image.fromarray(_photo()).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: its content is not a JPEG, PNG, .* image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "it's {0} a $HOME.png", "a.tif", "a.ppm"])
def test_16_bit_grey_is_refused_with_a_command_that_converts_it(tmp_path: Path, name: str) -> None:
    grey = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    path = tmp_path / name
    if path.suffix == ".ppm":
        path.write_bytes(b"P5\n40 30\n65535\n" + grey.astype(">u2").tobytes())
    else:
        Image.fromarray(grey).save(path)
    with pytest.raises(ImageError, match=f"{re.escape(name)} is a 16-bit grey image") as caught:
        read_image(path)
    _run_printed_command(caught.value, tmp_path)
    converted = read_image(path.with_name(f"{path.stem}-8bit.png"))
    expected = np.rint(grey / 257).astype(np.uint8)
    np.testing.assert_array_equal(converted, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_16_bit_colour_is_refused_instead_of_cut(tmp_path: Path, suffix: str) -> None:
    channels = np.random.default_rng(0).integers(0, 65536, (6, 8, 3)).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    contents = {
        ".png": _png16(2, channels),
        ".tif": _tiff_rgb16(channels),
        ".ppm": b"P6\n# a comment\n8 6\n65535\n" + channels.astype(">u2").tobytes(),
    }
    path.write_bytes(contents[suffix])
    with pytest.raises(ImageError, match=rf"a{re.escape(suffix)} is a 16-bit RGB image") as caught:
        read_image(path)
    _run_printed_command(caught.value, tmp_path)
    converted = read_image(tmp_path / "a-8bit.png")
    assert np.abs(converted - channels / 257).max() <= 1  # truncated or rounded to the upper byte


@pytest.mark.parametrize(("colour_type", "num_channels"), [(4, 2), (6, 4)])
def test_16_bit_alpha_is_refused(tmp_path: Path, colour_type: int, num_channels: int) -> None:
    (tmp_path / "a.png").write_bytes(_png16(colour_type, np.full((6, 8, num_channels), 65535, np.uint16)))
    with pytest.raises(ImageError, match=r"a\.png is a 16-bit .* image"):
        read_image(tmp_path / "a.png")


def test_floating_point_is_refused_with_a_command_that_converts_it(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif is a floating-point image.*values of 0 to 1") as caught:
        read_image(tmp_path / "a.tif")
    _run_printed_command(caught.value, tmp_path)
    np.testing.assert_array_equal(read_image(tmp_path / "a-8bit.png")[..., 0], np.rint(values * 255))
    Image.fromarray(np.ones((6, 8), np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif is a 32-bit integer image"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_animations_and_pages_are_refused_with_a_command_that_takes_them_apart(tmp_path: Path, suffix: str) -> None:
    first, *others = [Image.new("RGB", (8, 6), (level, 0, 0)) for level in (0, 90, 180)]
    path = tmp_path / f"a {{b}}{suffix}"
    first.save(path, save_all=True, append_images=others, **({"lossless": True} if suffix == ".webp" else {}))
    what = "pages" if suffix == ".tif" else "frames of an animation"
    with pytest.raises(ImageError, match=f"holds several {what}") as caught:
        read_image(path)
    _run_printed_command(caught.value, tmp_path)
    names = [f"a {{b}}-{index:04d}.png" for index in range(3)]
    assert [int(read_image(tmp_path / name)[0, 0, 0]) for name in names] == [0, 90, 180]


def test_a_smaller_copy_inside_a_tiff_file_is_no_second_page(tmp_path: Path) -> None:
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "a.tif", True) as file:
        Image.fromarray(_photo()).save(file, "TIFF")
        file.newFrame()
        Image.fromarray(_photo(20, 30)).save(file, "TIFF", tiffinfo={254: 1})
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), _photo())


def test_the_first_of_several_cameras_is_read_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo = Image.fromarray(_photo())
        photo.save(tmp_path / name, "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))], quality=95)
        assert np.abs(read_image(tmp_path / name).astype(int) - _photo()).mean() < 10
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'a.jpg'} holds several images (MPO); only the first is read"
    ]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_what_is_unambiguous_is_converted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    picture = Image.fromarray(_photo()).convert(mode)
    expected = np.asarray(picture.convert("RGB"))
    for name in ("a.png", "b.png"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    assert len(caplog.records) == 1
    assert str(tmp_path / "a.png") in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pictures_are_refused_with_a_command_that_converts_them(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (8, 6), (200, 0, 0, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.convert(mode).save(tmp_path / "a.png", **({"transparency": 0} if mode == "P" else {}))
    if mode == "P":
        picture.quantize(4).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png is partly transparent") as caught:
        read_image(tmp_path / "a.png")
    _run_printed_command(caught.value, tmp_path)
    converted = read_image(tmp_path / "a-rgb.png")
    assert converted[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(converted[1, 1], np.asarray(picture.convert(mode).convert("RGB"))[1, 1])


def test_cmyk_is_converted_by_the_stated_rule_without_a_profile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("CMYK", (16, 16), (255, 0, 51, 51)).save(tmp_path / "a.jpg", quality=100)
    got = read_image(tmp_path / "a.jpg")[8, 8].astype(int)
    assert np.abs(got - [0, 204, 163]).max() <= 3  # (255 - ink) (255 - black) / 255
    assert "CMYK without a usable colour profile" in caplog.text


def _cmyk_profile() -> bytes:
    """ICC 2.4 profile of four grey inks: full coverage of each lowers L* by 25."""
    corners = [[255 - 255 * sum(inks) // 4, 128, 128] for inks in np.ndindex(2, 2, 2, 2)]
    table = bytes(range(256))
    lookup = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3, dtype=int) << 16).ravel())
    lookup += table * 4 + bytes(np.ravel(corners).tolist()) + table * 3
    header = struct.pack(
        ">I4sI4s4s4s12s4s", 144 + len(lookup), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"", b"acsp"
    )
    header = header.ljust(68, b"\0") + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(lookup)) + lookup


def test_cmyk_is_converted_by_its_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.jpg", quality=100, icc_profile=_cmyk_profile())
    got = read_image(tmp_path / "a.jpg")[8, 8].astype(int)
    assert np.abs(got - 185).max() <= 4  # L* = 75 in sRGB; by the rule without a profile, this is cyan
    assert "converted to sRGB by its embedded colour profile" in caplog.text


def test_cmyk_with_a_profile_of_another_colour_space_falls_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for index, content in enumerate((profile, b"no profile")):
        Image.new("CMYK", (16, 16), (255, 0, 51, 51)).save(tmp_path / f"{index}.jpg", quality=100, icc_profile=content)
        assert np.abs(read_image(tmp_path / f"{index}.jpg")[8, 8].astype(int) - [0, 204, 163]).max() <= 3
    assert len(caplog.records) == 1


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_that_names_the_file_or_a_picture(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray((DATA / data.draw(st.sampled_from(["crash_0.jpg", "float_tag.jpg"]))).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(content)
    image, message = None, ""
    try:
        image = read_image(path)
    except ImageError as error:
        message = str(error)
    if image is None:
        assert "damaged.jpg" in message
    else:
        assert image.ndim == 3
        assert image.dtype == np.uint8
