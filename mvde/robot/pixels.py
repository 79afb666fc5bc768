"""Pixels of sensor_msgs/Image and CompressedImage as RGB.

Encodings and their names are those of ``sensor_msgs/image_encodings.hpp``; ``nv12`` is what camera drivers add to them.
YUV is BT.601 in limited range, as in libmvde, OpenCV and cv_bridge. Bayer patterns are interpolated bilinearly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvde import native
from mvde.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1}
_YUYV, _UYVY = ("yuv422_yuy2", "yuyv"), ("yuv422", "uyvy")
_SEMI_PLANAR = ("nv12", "nv21")
_BAYER = {f"bayer_{pattern}8": pattern for pattern in ("rggb", "bggr", "gbrg", "grbg")}
COLOUR_ENCODINGS = (*_CHANNELS, *_YUYV, *_UYVY, *_SEMI_PLANAR, *_BAYER)
"""Encodings of images that a depth network can see."""

_WAYS_OUT = {
    "8UC3": "its colour order is not stated; republish it as rgb8 or bgr8",
    "mono16": "16-bit pixels; republish it as mono8",
    "rgb16": "16-bit pixels; republish it as rgb8",
    "bgr16": "16-bit pixels; republish it as bgr8",
}
_YUV_BITS = 20
_LUMA_OFFSET, _LUMA_GAIN = 16, 1220542
_RED_OF_V, _GREEN_OF_V, _GREEN_OF_U, _BLUE_OF_U = 1673527, -852492, -409993, 2116026
"""BT.601 in limited range in units of 2^-20: 1.164, 1.596, -0.813, -0.391, 2.018, as in libmvde."""


def rgb_of(encoding: str, size: tuple[int, int], step: int, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (H, W, 3), uint8, of the ``data`` (bytes) of an image of ``size`` (H, W) with rows of ``step`` bytes.

    Raises :class:`ImageError` for an encoding that is no 8-bit colour or grey, and for data of another length.
    """
    if encoding in _CHANNELS:
        return _interleaved(encoding, _rows(data, size, step, _CHANNELS[encoding]))
    if encoding in _YUYV or encoding in _UYVY:
        return _of_yuv422(_rows(data, size, step, 2), is_uyvy=encoding in _UYVY)
    if encoding in _SEMI_PLANAR:
        return _of_semi_planar(encoding, size, step, data)
    if encoding in _BAYER:
        return demosaiced(_rows(data, size, step, 1)[..., 0], _BAYER[encoding])
    known = ", ".join(COLOUR_ENCODINGS)
    raise ImageError(
        f"the encoding is {encoding!r} ({_WAYS_OUT.get(encoding, 'no colour or grey of 8 bits')}): expected one of "
        f"{known}"
    )


def demosaiced(mosaic: NDArray[np.uint8], pattern: str) -> NDArray[np.uint8]:
    """RGB (H, W, 3), uint8, of a Bayer mosaic (H, W) whose upper left 2x2 pixels read ``pattern`` row by row.

    Bilinear: a missing colour is the mean of its two or four nearest samples, rounded half up, with borders mirrored
    without repeating the edge, so that the pattern goes on.
    """
    height, width = mosaic.shape
    if height % 2 or width % 2:
        raise ImageError(f"a Bayer mosaic has even sides, but this one is {height}x{width}")
    padded = np.pad(mosaic.astype(np.uint16), 1, mode="reflect")
    centre = padded[1:-1, 1:-1]
    across = padded[1:-1, :-2] + padded[1:-1, 2:]
    down = padded[:-2, 1:-1] + padded[2:, 1:-1]
    cross = (across + down + 2) >> 2
    corners = (padded[:-2, :-2] + padded[:-2, 2:] + padded[2:, :-2] + padded[2:, 2:] + 2) >> 2
    beside, above = (across + 1) >> 1, (down + 1) >> 1
    rgb = np.empty((height, width, 3), np.uint8)
    for index, colour in enumerate(pattern):
        own = (slice(index // 2, None, 2), slice(index % 2, None, 2))
        if colour == "g":
            red_is_across = "r" in pattern[index // 2 * 2 : index // 2 * 2 + 2]
            red, blue = (beside, above) if red_is_across else (above, beside)
            rgb[own] = np.stack([red[own], centre[own], blue[own]], axis=-1)
        else:
            same, other = (0, 2) if colour == "r" else (2, 0)
            rgb[(*own, same)], rgb[(*own, 1)], rgb[(*own, other)] = centre[own], cross[own], corners[own]
    return rgb


def _rows(data: NDArray[np.uint8], size: tuple[int, int], step: int, channels: int) -> NDArray[np.uint8]:
    """View (H, W, channels) of strided rows."""
    height, width = size
    if height < 1 or width < 1 or step < width * channels or len(data) < step * (height - 1) + width * channels:
        raise ImageError(
            f"the image has {len(data)} bytes in rows of {step}, but {height}x{width} pixels of {channels} bytes need "
            f"{height * width * channels}"
        )
    rows = np.lib.stride_tricks.as_strided(data, (height, width * channels), (step, 1), writeable=False)
    return rows.reshape(height, width, channels)


def _interleaved(encoding: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    order = pixels[..., 2::-1] if encoding.startswith("bgr") else pixels[..., :3]
    return np.ascontiguousarray(order)


def _of_yuv422(pixels: NDArray[np.uint8], *, is_uyvy: bool) -> NDArray[np.uint8]:
    height, width, _ = pixels.shape
    if width % 2:
        raise ImageError(f"YUV 4:2:2 has an even width, but this image is {height}x{width}")
    yuyv = np.ascontiguousarray(pixels[..., ::-1] if is_uyvy else pixels)
    if native.is_available():
        with native.Resizer((height, width), (height, width), "stretch", "yuyv") as converter:
            return converter.resize(yuyv)
    chroma = yuyv[..., 1].reshape(height, width // 2, 2)
    return _of_yuv(yuyv[..., 0], np.repeat(chroma[..., 0], 2, axis=1), np.repeat(chroma[..., 1], 2, axis=1))


def _of_semi_planar(encoding: str, size: tuple[int, int], step: int, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of a luma plane above interleaved chroma; some drivers count the rows of both as the height."""
    height, width = size
    if step and len(data) == step * height and height % 3 == 0:
        height = height // 3 * 2
    if height % 2 or width % 2 or height < 2 or width < 2:
        raise ImageError(f"{encoding} has even sides, but this image is {height}x{width}")
    planes = _rows(data, (height * 3 // 2, width), step, 1)[..., 0]
    if encoding == "nv21":  # Cr before Cb
        chroma = planes[height:].reshape(height // 2, width // 2, 2)[..., ::-1].reshape(height // 2, width)
        planes = np.concatenate([planes[:height], chroma])
    if native.is_available():
        with native.Resizer((height, width), (height, width), "stretch", "nv12") as converter:
            return converter.resize(np.ascontiguousarray(planes))
    both = planes[height:].reshape(height // 2, width // 2, 2).repeat(2, axis=0).repeat(2, axis=1)
    return _of_yuv(planes[:height], both[..., 0], both[..., 1])


def _of_yuv(luma: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of planes (H, W), the conversion of libmvde in NumPy."""
    y = np.maximum(luma.astype(np.int32) - _LUMA_OFFSET, 0) * _LUMA_GAIN + (1 << (_YUV_BITS - 1))
    blue, red = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    sums = (y + _RED_OF_V * red, y + _GREEN_OF_V * red + _GREEN_OF_U * blue, y + _BLUE_OF_U * blue)
    return np.stack([np.clip(one >> _YUV_BITS, 0, 255).astype(np.uint8) for one in sums], axis=-1)
