"""Depth visualisation: a perceptually uniform colour map with scale bar."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mvde.contract import DepthKind

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

INVALID_COLOUR = (128, 128, 128)  # the colour map contains no grey

_NUM_COLOURS = 256
# Path through OKLCh from near (light yellow) via red to far (dark blue), with linearly decreasing lightness.
_LIGHTNESS = (0.93, 0.20)
_HUE_DEGREES = (105.0, -95.0)
_CHROMA = ((0.0, 0.30, 0.60, 0.85, 1.0), (0.11, 0.16, 0.19, 0.15, 0.07))
_BAR_MARGIN = 0.02
_NUM_TICKS = 5


@lru_cache(maxsize=1)
def colour_table() -> NDArray[np.uint8]:
    """Colour map (256, 3), uint8 sRGB, from near to far, with uniform steps in OKLab distance.

    OKLab: Björn Ottosson, "A perceptual color space for image processing", 2020.
    """
    t = np.linspace(0.0, 1.0, 4096)
    lightness, hue = np.interp(t, (0, 1), _LIGHTNESS), np.radians(np.interp(t, (0, 1), _HUE_DEGREES))
    chroma = np.interp(t, *_CHROMA)
    path = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    even = np.interp(np.linspace(0.0, travelled[-1], _NUM_COLOURS), travelled, t)
    lab = np.stack([np.interp(even, t, path[:, axis]) for axis in range(3)], axis=1)
    return np.rint(_srgb_from_oklab(lab) * 255).astype(np.uint8)


def colourise(depth_m: NDArray[np.float32], near_m: float, far_m: float) -> NDArray[np.uint8]:
    """Colour depth (H, W) in metres as RGB (H, W, 3), uint8; invalid pixels (not finite, or <= 0) are grey.

    Of inverse depth, ``near_m`` is the larger number.
    """
    valid = np.isfinite(depth_m) & (depth_m > 0)
    span = far_m - near_m
    position = (np.where(valid, depth_m, near_m) - near_m) / (span if abs(span) > 1e-6 else 1e-6)
    index = np.clip(np.rint(position * (_NUM_COLOURS - 1)), 0, _NUM_COLOURS - 1).astype(np.intp)
    picture = colour_table()[index]
    picture[~valid] = INVALID_COLOUR
    return picture


def depth_picture(depth_m: NDArray[np.float32], kind: DepthKind = DepthKind.METRIC) -> Image:
    """Render a map (H, W) of ``kind`` with a scale bar below it, from near to far whatever the kind.

    The scale spans the 1st to the 99th percentile of valid depth, so that outliers do not compress the colours.
    """
    from PIL import Image, ImageDraw

    near_m, far_m = _span(depth_m, kind)
    if kind.is_inverse:
        near_m, far_m = far_m, near_m
    picture = colourise(depth_m, near_m, far_m)
    height, width = depth_m.shape
    text_px = max(10, min(height, width) // 28)
    bar_height, margin = max(text_px, 6), max(round(_BAR_MARGIN * width), 6)
    canvas = Image.new("RGB", (width, height + bar_height + 2 * text_px + 2 * margin), (255, 255, 255))
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    left, right, top = margin, max(width - margin, margin + 1), height + margin
    ramp = np.linspace(near_m, far_m, right - left, dtype=np.float32)[None].repeat(bar_height, 0)
    canvas.paste(Image.fromarray(colourise(np.maximum(ramp, 1e-6), near_m, far_m)), (left, top))
    _draw_ticks(draw, (left, right), top + bar_height, text_px, near_m, far_m, _label(kind))
    return canvas


def _label(kind: DepthKind) -> str:
    """Unit on the scale; empty for numbers without one."""
    match kind:
        case DepthKind.METRIC | DepthKind.METRIC_FOCAL:
            return "m"
        case DepthKind.INVERSE_CANONICAL:
            return "1/m"
        case DepthKind.SCALE_INVARIANT | DepthKind.INVERSE_RELATIVE:
            return ""


def _draw_ticks(
    draw: object, span_px: tuple[int, int], top: int, text_px: int, near_m: float, far_m: float, unit: str
) -> None:
    from PIL import ImageDraw, ImageFont

    assert isinstance(draw, ImageDraw.ImageDraw)
    font = ImageFont.load_default(size=text_px)
    left, right = span_px
    num_ticks = max(2, min(_NUM_TICKS, (right - left) // (4 * text_px)))
    for value in np.linspace(near_m, far_m, num_ticks):
        x = left + (right - left - 1) * (value - near_m) / (far_m - near_m)
        label = f"{value:.2f} {unit}" if abs(far_m - near_m) < 2 else f"{value:.1f} {unit}"
        length = draw.textlength(label, font=font)
        draw.line([(x, top), (x, top + text_px // 3)], fill=(0, 0, 0), width=max(text_px // 12, 1))
        where = min(max(x - length / 2, left), max(right - length, left))
        draw.text((where, top + text_px // 3), label, fill=(0, 0, 0), font=font)


def _span(depth_m: NDArray[np.float32], kind: DepthKind) -> tuple[float, float]:
    """Range (min, max) of the scale; not empty for a constant map: at least 0.01, or a hundredth of inverse depth."""
    valid = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    if valid.size == 0:
        return 0.0, 1.0
    near_m, far_m = (float(value) for value in np.quantile(valid, (0.01, 0.99)))
    smallest = max(0.01 * near_m, 2e-6) if kind.is_inverse else 0.01
    return near_m, max(far_m, near_m + smallest)


def _srgb_from_oklab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert OKLab to sRGB in [0, 1], clipped to the gamut."""
    to_lms = np.array([
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ])  # fmt: skip
    to_linear = np.array([
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ])  # fmt: skip
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_linear.T, 0.0, 1.0)
    encoded: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded
