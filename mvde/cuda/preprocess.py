"""Camera frame to model input on an NVIDIA GPU: arguments and launch plan of ``cpp/kernels/preprocess.cu``."""

from __future__ import annotations

import ctypes
from enum import Enum
from typing import NamedTuple, Protocol

from mvde.cuda.postprocess import LaunchPlan
from mvde.errors import ImageError, UsageError
from mvde.resampling import Resampling, ResizeTable, most_taps, resize_table

_YUV_BITS = 20
_TILE = (16, 32)
_BLOCK_THREADS = 256
_SHARED_BYTES = 32 * 32 * 4


class PixelFormat(Enum):
    """Layout of a camera frame, 8 bits per channel. The values are those of ``mvde_pixel_format``."""

    RGB = 0
    BGR = 1
    GREY = 2
    NV12 = 3  # a Y plane, and an interleaved UV plane of half the size
    YUYV = 4  # Y0 U Y1 V


class YuvStandard(Enum):
    """YCbCr to RGB conversion: ITU-R BT.601 or BT.709; luma from 16 to 235 (limited) or 0 to 255 (full)."""

    BT601_LIMITED = "bt601-limited"
    BT601_FULL = "bt601-full"
    BT709_LIMITED = "bt709-limited"
    BT709_FULL = "bt709-full"


class BoxLike(Protocol):
    """A rectangle in pixels, such as ``mvde.runtime.placement.Box``."""

    @property
    def top(self) -> int:
        """First row."""
        ...

    @property
    def left(self) -> int:
        """First column."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...


class PlacementLike(Protocol):
    """Placement of a frame in the model's input, as from ``mvde.runtime.placement.place``; sizes are (H, W)."""

    @property
    def source_size(self) -> tuple[int, int]:
        """Size of the frame."""
        ...

    @property
    def source_box(self) -> BoxLike:
        """Part of the frame to resize."""
        ...

    @property
    def target_size(self) -> tuple[int, int]:
        """Size of the model's input."""
        ...

    @property
    def target_box(self) -> BoxLike:
        """Part of the model's input to fill."""
        ...

    @property
    def resampling(self) -> Resampling:
        """How the part is resampled, and the padding around it."""
        ...


class _Taps(ctypes.Structure):
    _fields_ = (
        ("firsts", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("most", ctypes.c_int),
    )


class _YuvMatrix(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in ("luma_offset", "luma_gain", "red_of_v", "green_of_u", "green_of_v", "blue_of_u")
    )


class PreprocessParams(ctypes.Structure):
    """``PreprocessParams`` of ``cpp/kernels/preprocess_params.h``; pitches are in bytes."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("source_pitch", ctypes.c_longlong),
        ("chroma_pitch", ctypes.c_longlong),
        ("target_pitch", ctypes.c_longlong),
        ("columns", _Taps),
        ("rows", _Taps),
        ("source_top", ctypes.c_int),
        ("source_left", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("box_top", ctypes.c_int),
        ("box_left", ctypes.c_int),
        ("box_height", ctypes.c_int),
        ("box_width", ctypes.c_int),
        ("pixel_format", ctypes.c_int),
        ("yuv", _YuvMatrix),
        ("fill", ctypes.c_ubyte * 4),
    )


class DeviceFrame(NamedTuple):
    """A camera frame in device memory: addresses and pitches in bytes; ``chroma`` is NV12's UV plane."""

    address: int
    pitch: int
    pixel_format: PixelFormat = PixelFormat.RGB
    chroma_address: int = 0
    chroma_pitch: int = 0


def resize_tables(placement: PlacementLike) -> tuple[ResizeTable, ResizeTable]:
    """Compute the tables (columns, rows) of a placement."""
    (source_height, source_width), (height, width) = placement.source_box.size, placement.target_box.size
    resampling = placement.resampling
    return resize_table(source_width, width, resampling), resize_table(source_height, height, resampling)


def preprocess_params(
    frame: DeviceFrame,
    placement: PlacementLike,
    target_address: int,
    columns_address: int,
    rows_address: int,
    *,
    target_pitch: int = 0,
    yuv: YuvStandard = YuvStandard.BT601_LIMITED,
    fill: tuple[int, int, int] | None = None,
) -> PreprocessParams:
    """Build the kernel's arguments; tables are packed in device memory, the target is (H, W, 3) uint8, RGB.

    ``fill`` is the colour around the frame, by default the placement's padding.

    Raises :class:`UsageError` for an address of 0 or a pitch that is too small, :class:`ImageError` for NV12 or YUYV
    with odd sides.
    """
    _check_frame(frame, placement)
    height, width = placement.target_size
    pitch = target_pitch or 3 * width
    if 0 in (target_address, columns_address, rows_address) or pitch < 3 * width:
        raise UsageError(f"the target and the tables need device addresses, and a target pitch of {3 * width} bytes")
    source, target = placement.source_box, placement.target_box
    return PreprocessParams(
        source=frame.address,
        chroma=frame.chroma_address,
        target=target_address,
        source_pitch=frame.pitch,
        chroma_pitch=frame.chroma_pitch,
        target_pitch=pitch,
        columns=_taps(columns_address, source.size[1], target.size[1], placement.resampling),
        rows=_taps(rows_address, source.size[0], target.size[0], placement.resampling),
        source_top=source.top,
        source_left=source.left,
        height=height,
        width=width,
        box_top=target.top,
        box_left=target.left,
        box_height=target.size[0],
        box_width=target.size[1],
        pixel_format=frame.pixel_format.value,
        yuv=yuv_matrix(yuv),
        fill=(*(fill or (placement.resampling.padding,) * 3), 0),
    )


def plan_preprocess(params: PreprocessParams) -> LaunchPlan:
    """Plan the launch for ``params``: one block per 16 x 32 pixels of the target."""
    grid = (-(-params.width // _TILE[1]), -(-params.height // _TILE[0]), 1)
    return LaunchPlan("mvde_preprocess", grid, _BLOCK_THREADS, _SHARED_BYTES)


def yuv_matrix(standard: YuvStandard) -> _YuvMatrix:
    """Fixed-point coefficients of the standard with 20 fractional bits.

    Those of limited-range BT.601 are libmvde's (``frame.cpp``), rounded to three decimals, for bit-identical results;
    the others are derived from the weights of red and blue.
    """
    if standard is YuvStandard.BT601_LIMITED:
        return _YuvMatrix(16, 1220542, 1673527, -409993, -852492, 2116026)
    red, blue = (0.299, 0.114) if standard is YuvStandard.BT601_FULL else (0.2126, 0.0722)
    green = 1.0 - red - blue
    limited = standard is YuvStandard.BT709_LIMITED
    luma_gain, chroma_gain = (255 / 219, 255 / 224) if limited else (1.0, 1.0)
    one = 1 << _YUV_BITS
    return _YuvMatrix(
        luma_offset=16 if limited else 0,
        luma_gain=round(luma_gain * one),
        red_of_v=round(2 * (1 - red) * chroma_gain * one),
        green_of_u=round(-2 * (1 - blue) * blue / green * chroma_gain * one),
        green_of_v=round(-2 * (1 - red) * red / green * chroma_gain * one),
        blue_of_u=round(2 * (1 - blue) * chroma_gain * one),
    )


def _taps(address: int, source_size: int, target_size: int, resampling: Resampling) -> _Taps:
    """Addresses of a packed table's parts."""
    most = most_taps(source_size, target_size, resampling)
    return _Taps(address, address + 4 * target_size, address + 8 * target_size, most)


def _check_frame(frame: DeviceFrame, placement: PlacementLike) -> None:
    height, width = placement.source_size
    pixel_format, nv12 = frame.pixel_format, frame.pixel_format is PixelFormat.NV12
    row_bytes = width * {PixelFormat.RGB: 3, PixelFormat.BGR: 3, PixelFormat.YUYV: 2}.get(pixel_format, 1)
    if frame.address == 0 or (nv12 and frame.chroma_address == 0):
        raise UsageError("a frame's device address is 0; NV12 needs both its planes")
    if frame.pitch < row_bytes or (nv12 and frame.chroma_pitch < width):
        raise UsageError(f"rows of {row_bytes} bytes do not fit a pitch of {frame.pitch} ({frame.chroma_pitch} chroma)")
    if (nv12 and height % 2) or (width % 2 and pixel_format in (PixelFormat.NV12, PixelFormat.YUYV)):
        raise ImageError(f"a frame of {height}x{width} has an odd side, but {pixel_format.name} pairs its pixels")
