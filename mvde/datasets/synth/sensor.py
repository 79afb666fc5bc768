"""What a camera does to a developed frame: white balance off the light, sensor noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from mvde.datasets.synth.variations import Variations

_READ_SHARE = 0.3
"""Share of a middle grey's noise that is there in the dark, too; the rest grows with the root of the light."""


def expose(rgb: npt.NDArray[np.uint8], rng: np.random.Generator, variations: Variations) -> npt.NDArray[np.uint8]:
    """Return a frame (H, W, 3) uint8 RGB as a sensor with other settings would store it.

    The number of draws of ``rng`` depends on the frame's size only.
    """
    gains = np.exp(rng.normal(0.0, 1.0, 3) * variations.balance)
    deviation = variations.noise * rng.random() ** 2  # most cameras are good ones
    grain = rng.standard_normal(rgb.shape, dtype=np.float32)
    is_compressed = rng.random() < variations.jpeg_share
    quality = int(rng.integers(variations.jpeg[0], variations.jpeg[1] + 1))
    linear = (rgb.astype(np.float32) / 255) ** np.float32(2.2) * gains.astype(np.float32)
    encoded = np.clip(linear, 0, 1) ** np.float32(1 / 2.2)
    read, shot = _READ_SHARE, 1 - _READ_SHARE
    noisy = encoded + np.float32(deviation) * (read + shot * np.sqrt(encoded / 0.5)) * grain
    stored = np.asarray(np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)
    return compress(stored, quality) if is_compressed else stored


def compress(rgb: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """Return a frame (H, W, 3) uint8 RGB after JPEG of a quality from 1 to 100."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "JPEG", quality=quality)
    content.seek(0)
    return np.asarray(Image.open(content).convert("RGB"))
