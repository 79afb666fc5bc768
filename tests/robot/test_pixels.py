"""Encodings of sensor_msgs/Image against SciPy and the equations of BT.601."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve

from mvde import native
from mvde.errors import ImageError
from mvde.robot.pixels import demosaiced, rgb_of

SIZE = (12, 16)


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def _flat(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels).reshape(-1)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_channels_are_put_in_the_order_of_rgb(rgb: np.ndarray, encoding: str) -> None:
    order = ["rgba".index(one) for one in encoding[:-1]]
    stored = np.concatenate([rgb, np.full((*SIZE, 1), 7, np.uint8)], axis=2)[..., order]
    np.testing.assert_array_equal(rgb_of(encoding, SIZE, stored[0].nbytes, _flat(stored)), rgb)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_is_repeated(rgb: np.ndarray, encoding: str) -> None:
    grey = rgb[..., 0]
    np.testing.assert_array_equal(rgb_of(encoding, SIZE, 16, _flat(grey)), np.stack([grey] * 3, axis=2))


def test_rows_may_be_padded(rgb: np.ndarray) -> None:
    padded = np.zeros((SIZE[0], 64), np.uint8)
    padded[:, :48] = rgb.reshape(SIZE[0], 48)
    data = _flat(padded)[: 64 * 11 + 48]  # drivers leave out the padding of the last row
    np.testing.assert_array_equal(rgb_of("rgb8", SIZE, 64, data), rgb)


def _bt601(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """Limited range, from the weights of red and blue, 0.299 and 0.114."""
    y, pb, pr = (luma - 16.0) / 219, (cb - 128.0) / 224, (cr - 128.0) / 224
    y = np.maximum(y, 0)
    red, blue = y + 2 * (1 - 0.299) * pr, y + 2 * (1 - 0.114) * pb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=2) * 255, 0, 255)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
@pytest.mark.parametrize("is_native", [True, False])
def test_yuv_becomes_rgb_as_bt601_says(encoding: str, is_native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_native and not native.is_available():
        pytest.skip("libmvde is not built")
    monkeypatch.setattr(native, "is_available", lambda: is_native)
    rng = np.random.default_rng(5)
    luma = rng.integers(0, 256, SIZE, dtype=np.uint8)
    is_planar = encoding.startswith("nv")
    halves = rng.integers(0, 256, (2, SIZE[0] // 2 if is_planar else SIZE[0], SIZE[1] // 2), dtype=np.uint8)
    cb, cr = (half.repeat(2 if is_planar else 1, axis=0).repeat(2, axis=1) for half in halves)
    if is_planar:
        pair = halves if encoding == "nv12" else halves[::-1]
        stored, step = np.concatenate([luma, np.stack(list(pair), axis=2).reshape(SIZE[0] // 2, SIZE[1])]), SIZE[1]
    else:
        chroma = np.where(np.arange(SIZE[1]) % 2 == 0, cb, cr)
        is_luma_first = encoding in ("yuyv", "yuv422_yuy2")
        stored, step = np.stack([luma, chroma] if is_luma_first else [chroma, luma], axis=2), 2 * SIZE[1]
    found = rgb_of(encoding, SIZE, step, _flat(stored))
    assert found.dtype == np.uint8
    # 1.164 and the others have three decimals, which is 0.05 levels, and bytes round by a half.
    assert np.abs(found - _bt601(luma, cb, cr)).max() < 0.65
    if is_planar:  # drivers that count the rows of chroma
        np.testing.assert_array_equal(rgb_of(encoding, (SIZE[0] * 3 // 2, SIZE[1]), step, _flat(stored)), found)


def test_yuv_in_numpy_and_in_libmvde_are_equal_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    if not native.is_available():
        pytest.skip("libmvde is not built")
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    luma, cb, cr = (one.reshape(-1) for one in np.meshgrid(levels, levels, levels))
    stored = np.stack([luma, cb, luma, cr], axis=1).reshape(2 * len(levels), -1, 2)
    size = stored.shape[:2]
    by_libmvde = rgb_of("yuyv", size, stored[0].nbytes, _flat(stored))
    monkeypatch.setattr(native, "is_available", lambda: False)
    np.testing.assert_array_equal(rgb_of("yuyv", size, stored[0].nbytes, _flat(stored)), by_libmvde)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_is_interpolated_bilinearly(pattern: str) -> None:
    mosaic = np.random.default_rng(7).integers(0, 256, SIZE, dtype=np.uint8)
    places = np.array(list(pattern)).reshape(2, 2)[np.indices(SIZE)[0] % 2, np.indices(SIZE)[1] % 2]
    expected = []
    for colour, kernel in (("r", [[1, 2, 1], [2, 4, 2], [1, 2, 1]]), ("g", [[0, 1, 0], [1, 4, 1], [0, 1, 0]]),
                           ("b", [[1, 2, 1], [2, 4, 2], [1, 2, 1]])):  # fmt: skip
        samples = np.where(places == colour, mosaic, 0).astype(float)
        expected.append(np.floor(convolve(samples, np.array(kernel) / 4, mode="mirror") + 0.5))
    found = rgb_of(f"bayer_{pattern}8", SIZE, SIZE[1], _flat(mosaic))
    np.testing.assert_array_equal(found, np.stack(expected, axis=2))


@pytest.mark.parametrize(
    ("encoding", "size", "num_bytes", "message"),
    [
        ("32FC1", (4, 4), 64, "'32FC1' (no colour or grey of 8 bits)"),
        ("8UC3", (4, 4), 48, "its colour order is not stated"),
        ("mono16", (4, 4), 32, "republish it as mono8"),
        ("rgb8", (4, 4), 47, "4x4 pixels of 3 bytes need 48"),
        ("rgb8", (0, 4), 0, "0x4 pixels"),
        ("yuyv", (4, 3), 24, "even width"),
        ("nv12", (5, 4), 30, "even sides, but this image is 5x4"),
        ("nv12", (4, 4), 20, "has 20 bytes"),
        ("bayer_rggb8", (3, 4), 12, "even sides"),
    ],
)
def test_what_is_no_picture_is_refused(encoding: str, size: tuple[int, int], num_bytes: int, message: str) -> None:
    step = num_bytes // max(size[0], 1) if encoding != "nv12" else size[1]
    step = 12 if encoding == "rgb8" else step
    with pytest.raises(ImageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        rgb_of(encoding, size, step, np.zeros(num_bytes, np.uint8))


def test_a_mosaic_with_odd_sides_is_refused() -> None:
    with pytest.raises(ImageError, match="even sides"):
        demosaiced(np.zeros((3, 4), np.uint8), "rggb")
