"""Side-by-side depth pictures of several engines for the HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from mvde.runtime.render import colour_table, colourise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvde.camera import Camera

_WIDTH_PX = 320
_JPEG_QUALITY = 82
_NUM_STOPS = 12


@dataclass(frozen=True)
class Picture:
    """Image (H, W, 3) uint8 RGB for depth pictures, and its true depth (H, W) in metres, if known.

    ``camera`` is the one that took it, if known.
    """

    image: NDArray[np.uint8]
    truth_m: NDArray[np.float32] | None = None
    camera: Camera | None = None


def comparison(
    picture: Picture, depths: Sequence[tuple[str, str, NDArray[np.float32]]], unit: str, reference: str
) -> str:
    """Row of figures: the image, its true depth, and (name, colour, depth) of each engine on one colour scale.

    Each depth is captioned with its mean ``|Δ| / depth`` to the truth or, without one, to the first engine, named
    ``reference``.
    """
    truth_m = picture.truth_m
    low, high = _span([truth_m] if truth_m is not None else [depth for _, _, depth in depths])
    figures = [_figure(picture.image, "image", "")]
    if truth_m is not None:
        figures.append(_figure(colourise(truth_m, low, high), "true depth", ""))
    expected = truth_m if truth_m is not None else depths[0][2]
    against = "the truth" if truth_m is not None else reference
    for index, (name, colour, depth_m) in enumerate(depths):
        is_reference = truth_m is None and index == 0
        note = "" if is_reference else f"mean |Δ|/depth to {against}: {_difference(depth_m, expected)}"
        figures.append(_figure(colourise(depth_m, low, high), name, note, colour))
    stops = colour_table()[np.linspace(0, len(colour_table()) - 1, _NUM_STOPS).astype(int)]
    ramp = ", ".join(f"rgb({r},{g},{b})" for r, g, b in stops.tolist())
    scale = (
        f'<div class="ramp"><span>{low:.2f} {unit}</span><i style="background:linear-gradient(90deg, {ramp})"></i>'
        f"<span>{high:.2f} {unit}</span></div>"
    )
    return f'<div class="pictures">{"".join(figures)}</div>{scale}'


def _figure(rgb: NDArray[np.uint8], name: str, note: str, colour: str | None = None) -> str:
    swatch = f'<i class="swatch" style="background:{colour}"></i>' if colour else ""
    text = f"<small>{escape(note)}</small>" if note else ""
    height, width = rgb.shape[:2]
    return (
        f'<figure><img src="{_data_uri(rgb)}" width="{width}" height="{height}" alt="{escape(name)}">'
        f"<figcaption>{swatch}{escape(name)}{text}</figcaption></figure>"
    )


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    from PIL import Image

    image = Image.fromarray(rgb)
    if image.width > _WIDTH_PX:
        image = image.resize((_WIDTH_PX, max(round(image.height * _WIDTH_PX / image.width), 1)))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _span(depths_m: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Range of the colour scale: 1st to 99th percentile of valid depth."""
    values = np.concatenate([depth[np.isfinite(depth) & (depth > 0)].ravel() for depth in depths_m])
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(values, (0.01, 0.99)))
    return low, max(high, low + 0.01)


def _difference(depth_m: NDArray[np.float32], expected_m: NDArray[np.float32]) -> str:
    valid = np.isfinite(expected_m) & (expected_m > 0) & np.isfinite(depth_m)
    if not valid.any():
        return "no valid pixel"
    share = float(np.mean(np.abs(depth_m[valid] - expected_m[valid]) / expected_m[valid]))
    return f"{share:.1%}" if share >= 0.001 else f"{share:.1e}"
